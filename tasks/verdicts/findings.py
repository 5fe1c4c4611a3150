"""All findings of a step, those that matter first."""

from collections.abc import Iterator, Mapping, Sequence

from timtrack.tasks.verdicts.advice import Advice
from timtrack.tasks.verdicts.causes import Cause
from timtrack.tasks.verdicts.diagnoses import DIAGNOSES, NOTHING_FOUND
from timtrack.tasks.verdicts.finding import Finding, Tables


def findings_of(tables: Tables, causes: Sequence[Cause], advice: Advice | None) -> list[Finding]:
    """Every diagnosis of a step: what matters first, of that the capture's own faults first.

    A pruned step may have tables of older SQL: what they lack is not said.
    """
    applicable = [diagnose for diagnose, needs in DIAGNOSES.items() if _has(tables, needs)]
    findings = [finding for diagnose in applicable for finding in diagnose(tables)]
    if causes:
        findings = list(_beside(findings, {cause.id for cause in causes}))
    findings += [_of_cause(cause) for cause in causes]
    if advice:
        findings.append(_of_advice(advice, is_known=bool(causes)))
    return sorted(findings, key=lambda f: (f.table != "causes", not f.matters, not f.of_capture))


CONSEQUENCES = ("noise_floor", "culprits")  # what a cause shows in is no second cause
RAW_OF_TEMPERED = "F2"


def _beside(found: list[Finding], causes: set[str]) -> Iterator[Finding]:
    """What is left to say beside named causes."""
    for finding in found:
        if finding.text == NOTHING_FOUND:
            continue
        if finding.table == "sampling" and RAW_OF_TEMPERED in causes:
            continue  # it asks what the cause answers
        yield finding.as_remark() if finding.table in CONSEQUENCES else finding


def _of_advice(advice: Advice, is_known: bool) -> Finding:
    """What a correction could do: what matters, unless a cause is known, which is mended first."""
    if not is_known:
        return Finding("corrections", advice.text, advice.setting != "none")
    text = advice.text.replace("Recommended: ", "Until the cause is mended, the mildest is ")
    return Finding("corrections", text, matters=advice.setting is None)


def _of_cause(cause: Cause) -> Finding:
    """What fits, what speaks for it, and what would decide."""
    evidence = "; ".join(one.text for one in cause.evidence) or "not known any more"
    against = "".join(f" Against it: {one.text}." for one in cause.against)
    text = (
        f"{cause.id}, {cause.name}: {cause.meaning} Evidence: {evidence}.{against} To be sure: "
        f"{cause.experiment}"
    )
    return Finding("causes", text, matters=True)


def _has(tables: Tables, needs: Mapping[str, set[str]]) -> bool:
    """Whether tables and columns are there: tables of older SQL may lack some."""
    return all(
        name in tables and columns <= set(tables[name].columns) for name, columns in needs.items()
    )
