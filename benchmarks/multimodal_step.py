"""One SFT batch of conversations with pictures, collated, forward and backward: TRL's vision collator and ours.

Both sides have the same weights, the same conversations and the same pictures in files, and run on a CPU with one
thread, each in a process of its own. TRL renders messages and pictures in its collator; ours holds ids and references.
"First" is a batch whose pictures nobody has seen; "again" is the same batch in a later epoch. Not in the times: ours
checks every row before training begins, for which each picture is read once. Times are CPU seconds,
the least of the repeats; memory is how far the process's greatest resident size rose above its size before. Losses and
gradients are compared before anything is reported: nothing is faster that computes something else.

Then what TRL takes and refuses: each case is handed to it, and what it says is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _common import Row, report, row
from loss_step import difference, forget_peak, resident_mib

from agent.tiny_vlm import Shape, tiny_vlm
from envs import Step, Task, Trajectory, assistant, user
from tools import BlobStore

SIDES = ("ours", "trl")
TOLERANCE = 1e-4
SHAPE = Shape(image_size=224, patch_size=16, vision_hidden=192, vision_layers=4, hidden=256, layers=4)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A batch: how many conversations, with how many pictures, of which how many are the same in all of them."""

    rows: int
    pictures: int
    shared: int
    freeze: bool = False

    @property
    def label(self) -> str:
        frozen = ", towers frozen" if self.freeze else ""
        return f"{self.rows} x {self.pictures} pictures, {self.shared} shared{frozen}"


def layouts(quick: bool) -> list[Layout]:
    """A group of attempts at one task shares the pictures of its prompt, as an epoch's rows of one task do."""
    if quick:
        return [Layout(rows=4, pictures=2, shared=1)]
    return [
        Layout(rows=8, pictures=2, shared=0),
        Layout(rows=8, pictures=2, shared=1),
        Layout(rows=8, pictures=4, shared=3),
        Layout(rows=8, pictures=2, shared=1, freeze=True),
    ]


def conversations(layout: Layout, blobs: BlobStore) -> list[Trajectory]:
    """Turns of a picture and a question, each answered."""
    from PIL import Image as Pillow

    rng = random.Random(1)

    def picture() -> Any:
        noise = Pillow.effect_noise((320, 240), 60).convert("RGB")
        noise.paste(tuple(rng.randrange(256) for _ in range(3)), (40, 30, 200, 180))
        return blobs.put_image(noise)

    same = [picture() for _ in range(layout.shared)]
    out: list[Trajectory] = []
    for index in range(layout.rows):
        shown = [*same, *(picture() for _ in range(layout.pictures - layout.shared))]
        steps = [
            Step(observation=(user(image, "What is it?"),), action=assistant(f"It is {rng.randrange(10**6)}."))
            for image in shown
        ]
        out.append(Trajectory(task=Task(id=str(index), prompt=steps[0].observation), steps=steps))
    return out


def as_messages(trajectory: Trajectory, blobs: BlobStore) -> dict[str, Any]:
    """The same conversation as TRL takes it."""
    from tools import Image

    said: list[dict[str, Any]] = []
    images: list[Any] = []
    for message in trajectory.messages:
        parts: list[dict[str, str]] = []
        for part in message.content:
            if isinstance(part, Image):
                images.append(blobs.open(part))
                parts.append({"type": "image"})
            else:
                parts.append({"type": "text", "text": part.text})
        said.append({"role": message.role, "content": parts})
    return {"messages": said, "images": images}


def ours(folder: Path, layout: Layout, blobs: BlobStore) -> tuple[Any, Callable[[], Any], Callable[[], None]]:
    """The trained model, a function from nothing to the batch's loss, and one that forgets what was seen."""
    from agent.dialects import dialect_named
    from agent.models import load_model
    from agent.renderer import Renderer
    from agent.vision import vision_of
    from training.pixels import prepare
    from training.recipe import SFT
    from training.sft import RowTrainer, config, dataset_of, rows_of

    model, tokenizer = load_model(str(folder))
    vision = vision_of(str(folder), tokenizer, blobs)
    assert vision is not None
    stage = SFT(data="d.jsonl", steps=1, batch_size=layout.rows, freeze_vision=layout.freeze, trl={"bf16": False})
    prepare(model, vision, stage)
    rows, _ = rows_of(conversations(layout, blobs), Renderer(tokenizer, dialect_named("hermes"), vision=vision))
    dataset = dataset_of(rows)
    trainer = RowTrainer(
        model=model,
        args=config(stage, folder.parent / "out", 0),
        train_dataset=dataset,
        processing_class=tokenizer,
        vision=vision,
    )

    def loss() -> Any:
        batch = trainer.data_collator([dataset[index] for index in range(len(dataset))])
        return trainer.compute_loss(trainer.model, dict(batch))

    def forget() -> None:
        vision.forget()

    forget()  # what the audit of the rows has read
    return trainer.model, loss, forget


def trls(folder: Path, layout: Layout, blobs: BlobStore) -> tuple[Any, Callable[[], Any], Callable[[], None]]:
    """The same with TRL's collator and the model's own loss, which is what its trainer computes."""
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    model: Any = AutoModelForImageTextToText.from_pretrained(folder)
    processor: Any = AutoProcessor.from_pretrained(folder)
    if layout.freeze:
        for tower in (model.model.vision_model, model.model.connector):
            tower.requires_grad_(False)
    collator = DataCollatorForVisionLanguageModeling(processor, assistant_only_loss=True)
    trajectories = conversations(layout, blobs)

    def loss() -> Any:
        batch = collator([as_messages(trajectory, blobs) for trajectory in trajectories])
        return model(**batch, use_cache=False).loss

    return model.train(), loss, lambda: None


def measure(side: str, layout: Layout, repeats: int, folder: Path) -> dict[str, float]:
    """CPU seconds of both kinds of batch, and memory; the gradients are left in `folder`."""
    import torch

    torch.set_num_threads(1)
    blobs = BlobStore(folder / "blobs")
    model, loss, forget = (ours if side == "ours" else trls)(tiny_vlm(folder / "model", shape=SHAPE), layout, blobs)
    loss().backward()  # kernels and imports are warm
    found: dict[str, float] = {}
    for kind in ("first", "again"):
        seconds: list[float] = []
        for _ in range(repeats):
            if kind == "first":
                forget()
            model.zero_grad()
            forget_peak()
            before = resident_mib("VmRSS:")
            cpu = time.process_time()
            value = loss()
            value.backward()
            seconds.append(time.process_time() - cpu)
            found["taken"] = max(found.get("taken", 0.0), resident_mib("VmHWM:") - before)
            found["loss"] = value.item()
        found[kind] = min(seconds)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    torch.save(gradients, folder / f"{side}.pt")
    return found


def child(side: str, quick: bool, folder: Path) -> None:
    """Measure every layout and print a line for each."""
    for number, layout in enumerate(layouts(quick)):
        (folder / str(number)).mkdir(exist_ok=True)
        print(json.dumps(measure(side, layout, 1 if quick else 3, folder / str(number))), flush=True)


def in_process(side: str, quick: bool, folder: Path) -> list[dict[str, float]]:
    """What `child` found."""
    command = [sys.executable, "-W", "ignore", __file__, "--child", side, str(folder), *(["--quick"] if quick else [])]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=env, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def compare(layout: Layout, mine: dict[str, float], theirs: dict[str, float], folder: Path) -> list[Row]:
    """Both sides of one layout. Raises where they do not compute the same."""
    gap = difference(folder)
    if gap > TOLERANCE or abs(mine["loss"] - theirs["loss"]) > TOLERANCE:
        raise SystemExit(f"{layout.label}: losses {mine['loss']} and {theirs['loss']}, gradients differ by {gap:.2g}")
    print(f"{layout.label}: losses {mine['loss']:.7f}, {theirs['loss']:.7f}, gradients differ by {gap:.1e}")
    peer = "TRL vision collator"
    return [
        row(f"{layout.label}: first", peer, mine["first"], theirs["first"], "s"),
        row(f"{layout.label}: again", peer, mine["again"], theirs["again"], "s"),
        row(f"{layout.label}: memory of a step", peer, mine["taken"], theirs["taken"], "MiB"),
    ]


def refusals(folder: Path) -> None:
    """What TRL says to each kind of episode that is trained on here."""
    from PIL import Image as Pillow
    from transformers import AutoProcessor
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    processor: Any = AutoProcessor.from_pretrained(tiny_vlm(folder))
    collator = DataCollatorForVisionLanguageModeling(processor, assistant_only_loss=True)
    image = Pillow.new("RGB", (64, 64), "red")
    shown, text = {"type": "image"}, {"type": "text", "text": "See?"}
    call = {"type": "function", "function": {"name": "zoom", "arguments": {"box": 1}}}
    asks = {"role": "user", "content": [shown, text]}
    says = {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]}
    calls = {"role": "assistant", "content": [{"type": "text", "text": ""}], "tool_calls": [call]}
    plain = {"role": "user", "content": [text]}
    cases: dict[str, list[dict[str, Any]]] = {
        "a picture in a user's turn": [{"messages": [asks, says], "images": [image]}],
        "a picture that a tool returned": [
            {"messages": [asks, calls, {"role": "tool", "content": [shown]}, says], "images": [image, image]}
        ],
        "a first picture from a tool, after a prompt of text": [
            {"messages": [plain, calls, {"role": "tool", "content": [shown]}, says], "images": [image]}
        ],
        "a picture in the system turn": [
            {"messages": [{"role": "system", "content": [shown]}, plain, says], "images": [image]}
        ],
        "rows with and without pictures in one batch": [
            {"messages": [asks, says], "images": [image]},
            {"messages": [plain, says], "images": []},
        ],
        "the words <image> in a tool's text": [
            {
                "messages": [asks, calls, {"role": "tool", "content": [{"type": "text", "text": "<image>"}]}, says],
                "images": [image],
            }
        ],
    }
    print("\nTRL's vision collator, handed:")
    for name, examples in cases.items():
        try:
            batch = collator(examples)
            said = f"takes it, {int((batch['labels'] != -100).sum())} tokens trained"
        except Exception as error:  # whatever it raises is what a user meets
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:110]}"
        print(f"  {name}: {said}")


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one small layout, under a minute")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child[0], args.quick, Path(args.child[1]))
        return
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        found = {side: in_process(side, args.quick, Path(name)) for side in SIDES}
        for number, (layout, mine, theirs) in enumerate(zip(layouts(args.quick), *found.values(), strict=True)):
            rows += compare(layout, mine, theirs, Path(name) / str(number))
        refusals(Path(name) / "refusals")
    report("multimodal_step", rows, ["trl", "transformers", "torch", "pillow"])


if __name__ == "__main__":
    main()
