"""The codec at the pipeline's boundaries, and what the run did against it: anchor and merger.

What crosses a boundary, hidden states M [tokens, H], is replaced by its projection (M Q) Q^T onto
an orthonormal basis Q [H, r]: PowerSGD's low-rank idea (Vogels et al. 2019) applied to activations,
so that only r of H numbers a token travel. Q is detached and M stays in the graph: the gradient is
projected by the same Q Q^T on its way back. Q is frozen within a step and then follows by block
power iteration, V += M^T (M Q) during the step, Q <- orth(V) at its end.
"""

import torch
from torch import Tensor, nn

from timtrack.tasks.demo.toy_grpo.decoder import HIDDEN, LAYERS, Boundary

MERGE_A = 0.25  # weight of the gradient as computed
ANCHOR_BETA = 0.5  # memory of the anchor's moving average


class Codec:
    """Projects what crosses each boundary; `rank` of HIDDEN numbers a token are left."""

    def __init__(self, rank: int, seed: int) -> None:
        self.rank = rank
        self.bases = [self._random_basis(seed, layer) for layer in range(LAYERS - 1)]  # Q, [H, r]
        self.sums = [torch.zeros(HIDDEN, rank) for _ in range(LAYERS - 1)]  # V

    def boundary(self, real: Tensor, learn: bool) -> Boundary:
        """The projection for a batch with text where `real` [N, T] is 1; `learn` adds to V."""

        def cross(layer: int, hidden: Tensor) -> Tensor:
            basis = self.bases[layer]
            if learn:
                with torch.no_grad():
                    m = hidden[real.bool()]  # [tokens, H]: padding must not steer the basis
                    self.sums[layer] += m.T @ (m @ basis)
            return (hidden @ basis) @ basis.T

        return cross

    def end_step(self) -> None:
        """Q <- orth(V), and V starts anew."""
        for layer, total in enumerate(self.sums):
            if total.any():
                self.bases[layer] = orthonormal(total)
                self.sums[layer] = torch.zeros_like(total)

    def _random_basis(self, seed: int, layer: int) -> Tensor:
        generator = torch.Generator().manual_seed(1000 * seed + layer)
        return orthonormal(torch.randn(HIDDEN, self.rank, generator=generator))


def orthonormal(columns: Tensor) -> Tensor:
    """Q of the QR decomposition in float32, signs fixed by R's diagonal."""
    q, r = torch.linalg.qr(columns.float())
    return q * torch.where(r.diagonal() < 0, -1.0, 1.0)


class SignedEma:
    """The merger: the compressed gradient's size with the anchor's sign, per coordinate.

    `G = a * G_comp + (1 - a) * |G_comp| * sign(M_anc)`, M_anc a moving average of anchor gradients.
    """

    def __init__(self) -> None:
        self.average: list[Tensor] | None = None

    def update(self, anchor: list[Tensor]) -> None:
        """Take in the gradient of the uncompressed, late clone."""
        if self.average is None:
            self.average = [torch.zeros_like(gradient) for gradient in anchor]
        for average, new in zip(self.average, anchor, strict=True):
            average.mul_(ANCHOR_BETA).add_(new, alpha=1 - ANCHOR_BETA)

    def merge(self, model: nn.Module) -> None:
        """Correct the gradients in place, once there is an anchor."""
        if self.average is None:
            return
        for parameter, average in zip(model.parameters(), self.average, strict=True):
            g = parameter.grad
            if g is not None:
                parameter.grad = MERGE_A * g + (1 - MERGE_A) * g.abs() * average.sign()
