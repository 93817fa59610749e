"""Whom to cite for an architecture."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Paper:
    """A publication.

    Attributes:
        key: that BibTeX knows it by, such as "bai2019deep".
        title: as printed.
        authors: as BibTeX separates them, "Last, First and Last, First".
        venue: the proceedings it is in, or what published it.
        year: of publication.
        arxiv: its number there.

    """

    key: str
    title: str
    authors: str
    venue: str
    year: int
    arxiv: str

    def bibtex(self) -> str:
        """Returns its entry."""
        fields = {
            "title": self.title,
            "author": self.authors,
            "booktitle": self.venue,
            "year": self.year,
            "note": f"arXiv:{self.arxiv}",
        }
        told = ",\n".join(f"  {key} = {{{value}}}" for key, value in fields.items())
        return f"@inproceedings{{{self.key},\n{told}\n}}"
