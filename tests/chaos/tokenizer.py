"""Small tokenizers, whose files differ."""

from tokenizers import Tokenizer, models

IDS = 90  # as many as tests' batches have


def words(kind: int) -> str:
    """The content of a `tokenizer.json`; another one for another `kind`."""
    vocabulary = {f"word{kind}-{number}": number for number in range(IDS)}
    return Tokenizer(models.WordLevel(vocabulary, unk_token=f"word{kind}-0")).to_str()
