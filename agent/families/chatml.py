"""ChatML, `<|im_start|>role\\ntext<|im_end|>\\n`: SmolLM2, Qwen2.5, Qwen3 and many others."""

from __future__ import annotations

from agent.dialects.hermes import Hermes
from agent.families.family import Frame, Framed, History, joined
from agent.parts import Parts, control, markup

START, END = "<|im_start|>", "<|im_end|>"


def chatml(name: str = "chatml", default_system: str | None = None, history: History = "keep") -> Framed:
    """The family; `default_system` is the system turn its template writes where none is given.

    Its own calls are Hermes JSON, as Qwen2.5 and Qwen3 publish them.
    """

    def lead(system: Parts | None, instructions: str, native: bool) -> tuple[Parts, Parts]:
        default = None if default_system is None else (markup(default_system),)
        said = joined(default if system is None else system, instructions)
        return () if said is None else (*_header("system"), *said, *_footer("system")), ()

    return Framed(
        Frame(
            name=name,
            ends=(END,),
            header=_header,
            footer=_footer,
            lead=lead,
            controls=(START, END),
            after=(markup("\n"),),
            native=Hermes(),
            history=history,
        )
    )


def _header(role: str) -> Parts:
    return control(START), markup(f"{role}\n")


def _footer(role: str) -> Parts:
    return control(END), markup("\n")
