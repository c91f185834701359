"""A table in LaTeX, ready for `\\input`: a tabular of booktabs, its caveats numbered and explained below it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

NEEDED = (
    "% \\usepackage{booktabs}\n"
    "% Wider than the page: \\usepackage{graphicx}, \\resizebox{\\linewidth}{!}{\\input{...}}\n"
)
ESCAPED = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        **{character: f"${character}$" for character in "<>|"},
        "\\": "\\textbackslash{}",
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "±": "$\\pm$",
        "\n": " ",
    }
)


@dataclass(frozen=True)
class LatexTable:
    """What a tabular is made of, as plain text: `text` escapes it.

    Args:
        headers: one a column.
        groups: of lines, of cells; a rule stands between two groups.
        left: headers of columns that are set flush left, others right.
        wide: headers of columns whose text is broken into lines, each with its share of the width of the text.
        size: of the letters, as LaTeX calls it, with columns closer together; "" for the size of the text around.
        over: what stands above the headers, and over how many columns; nothing where it is empty.
        caveats: of some lines, by the group's place and the line's: they are numbered, behind the cell of `marked`.
        marked: the header of the column that caveats are marked in.
    """

    headers: Sequence[str]
    groups: Sequence[Sequence[Sequence[str]]]
    left: Collection[str] = ()
    wide: Mapping[str, float] = field(default_factory=dict)
    size: str = ""
    over: Sequence[tuple[str, int]] = ()
    caveats: Mapping[tuple[int, int], Sequence[str]] = field(default_factory=dict)
    marked: str = "model"

    def text(self, note: str) -> str:
        """The content of a file, with the note as comments before the tabular."""
        comments = "".join(f"% {line}\n" for line in note.splitlines())
        numbers = _numbered(self.caveats)
        groups = [
            "".join(self._line(place, row, numbers) for row in range(len(lines)))
            for place, lines in enumerate(self.groups)
            if lines
        ]
        rows = "\\midrule\n".join(groups)
        spans = "".join(_alignment(name, self.left, self.wide) for name in self.headers)
        tabular = (
            f"\\begin{{tabular}}{{{spans}}}\n\\toprule\n{self._above()}"
            f"{' & '.join(map(escaped, self.headers))} \\\\\n\\midrule\n"
            f"{rows}\\bottomrule\n\\end{{tabular}}"
        )
        whole = _with_notes(tabular, list(numbers))
        if self.size:
            whole = f"\\begingroup\\{self.size}\\setlength{{\\tabcolsep}}{{3pt}}%\n{whole}%\n\\endgroup"
        return f"{NEEDED}{comments}{whole}\n"

    def _line(self, group: int, row: int, numbers: dict[str, int]) -> str:
        cells = []
        for name, cell in zip(self.headers, self.groups[group][row], strict=True):
            caveats = self.caveats.get((group, row), ()) if name == self.marked else ()
            mark = f"$^{{{','.join(str(numbers[caveat]) for caveat in caveats)}}}$" if caveats else ""
            cells.append(("\\raggedright " if name in self.wide else "") + escaped(cell) + mark)
        return f"{' & '.join(cells)} \\\\\n"

    def _above(self) -> str:
        if not self.over:
            return ""
        cells, rules, first = [], [], 1
        for text, span in self.over:
            cells.append(f"\\multicolumn{{{span}}}{{c}}{{{escaped(text)}}}")
            if text:
                rules.append(f"\\cmidrule(lr){{{first}-{first + span - 1}}}")
            first += span
        return f"{' & '.join(cells)} \\\\\n{' '.join(rules)}\n"


def escaped(text: str) -> str:
    """Plain text as LaTeX sets it."""
    return text.translate(ESCAPED)


def _numbered(caveats: Mapping[tuple[int, int], Sequence[str]]) -> dict[str, int]:
    """The number of each caveat, in the order in which they come, from 1."""
    distinct = dict.fromkeys(caveat for place in sorted(caveats) for caveat in caveats[place])
    return {caveat: number for number, caveat in enumerate(distinct, 1)}


def _alignment(name: str, left: Collection[str], wide: Mapping[str, float]) -> str:
    if name in wide:
        return f"p{{{wide[name]}\\linewidth}}"
    return "l" if name in left else "r"


def _with_notes(tabular: str, notes: Sequence[str]) -> str:
    """The tabular, and what its numbers say, as wide as it is."""
    if not notes:
        return tabular
    lines = "\\\\\n".join(f"$^{{{number}}}$ {escaped(note)}" for number, note in enumerate(notes, 1))
    return (
        f"\\begingroup\\sbox0{{%\n{tabular}}}%\n"
        f"\\begin{{minipage}}{{\\wd0}}\\usebox0\\par\\smallskip\\footnotesize\\raggedright\n{lines}\n"
        "\\end{minipage}\\endgroup"
    )
