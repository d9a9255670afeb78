"""Gemma 3: `<start_of_turn>role\\ntext<end_of_turn>\\n`; no system turn, no tool turn."""

from __future__ import annotations

from agent.families.family import Frame, Framed, joined, no_place
from agent.parts import Parts, control, markup

START, END = "<start_of_turn>", "<end_of_turn>"


def gemma(bos: str = "<bos>") -> Framed:
    """The family. What the system says opens the first user turn; its template has no place for tools."""

    def lead(system: Parts | None, instructions: str, native: bool) -> tuple[Parts, Parts]:
        said = joined(system, instructions)
        return (control(bos),), () if said is None else (*said, markup("\n\n"))

    return Framed(
        Frame(
            name="gemma3",
            ends=(END,),
            header=_header,
            footer=lambda role: (control(END), markup("\n")),
            lead=lead,
            controls=(bos, START, END),
            after=(markup("\n"),),
            trims=True,
        )
    )


def _header(role: str) -> Parts:
    if role not in ("user", "assistant"):
        raise no_place("Gemma 3", role)
    return control(START), markup("model\n" if role == "assistant" else "user\n")
