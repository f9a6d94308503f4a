"""Train the demo model: `python -m agent.demo_model.train --out DIR --minutes 70`.

Seeded and resumable. With `--minutes` the schedule follows the clock, so that a busy machine makes
fewer steps; with `--steps` it follows the step count and two runs see the same data.
"""

import argparse
import csv
import sys
import time
from pathlib import Path
from random import Random
from typing import Any, TextIO

import torch

from agent.demo_model import gguf_export, schedule
from agent.demo_model.batches import TOKENS_PER_STEP, Batch, BatchMaker, TurnEncoder
from agent.demo_model.muon import Muon
from agent.demo_model.network import Network, Shape
from agent.demo_model.probes import judge, standard_probes
from agent.demo_model.tokenizer import LlamaTokenizer, Vocabulary, train_vocabulary

_MUON_RATE = 0.02
_ADAM_RATE = 3e-3


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for everything written")
    parser.add_argument("--minutes", type=float, default=70.0, help="length of the schedule")
    parser.add_argument("--steps", type=int, help="follow this many steps instead of the clock")
    parser.add_argument("--stop-after", type=int, help="stop after this many steps (a smoke run)")
    parser.add_argument("--save-every", type=float, default=5.0, help="minutes between checkpoints")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="go on from OUT/checkpoint.pt")
    return parser.parse_args(arguments)


class Run:
    """One training run and everything that a checkpoint holds."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.out: Path = options.out
        self.out.mkdir(parents=True, exist_ok=True)
        self.step = 0
        self.wall_s = 0.0
        self.cpu_s = 0.0
        torch.manual_seed(options.seed)
        torch.set_num_threads(options.threads)
        shape = Shape()
        self.vocabulary = self._vocabulary()
        tokenizer_path = self.out / "tokenizer.gguf"
        gguf_export.export_tokenizer(tokenizer_path, shape, self.vocabulary)
        self.encoder = TurnEncoder(LlamaTokenizer(tokenizer_path))
        self.batches = BatchMaker(self.encoder, Random(options.seed))
        self.network = Network(shape)
        network = self.network
        self.muon = Muon([network.attention, network.feed_forward])
        self.adam: Any = torch.optim.AdamW(
            [network.embedding, network.norms, network.output_norm],
            lr=_ADAM_RATE,
            betas=(0.9, 0.95),
            weight_decay=0.0,
        )
        self._compiled_loss: Any = torch.compile(network.loss, dynamic=False)

    def _vocabulary(self) -> Vocabulary:
        path = self.out / "vocabulary.json"
        if not path.exists():
            train_vocabulary(self.options.seed).save(path)
        return Vocabulary.read(path)

    @property
    def progress(self) -> float:
        """How far the schedule has come, 0 to 1."""
        if self.options.steps:
            return min(1.0, self.step / int(self.options.steps))
        return min(1.0, self.wall_s / (60.0 * float(self.options.minutes)))

    def train_step(self) -> float:
        """One batch; returns its loss."""
        length = schedule.length(self.batches.rng, self.progress)
        factor = schedule.rate(self.progress)
        loss = self._loss(self.batches.batch(length))
        loss.backward()
        self.muon.step(_MUON_RATE * factor)
        self.adam.param_groups[0]["lr"] = _ADAM_RATE * factor
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        self.step += 1
        return float(loss.detach())

    def _loss(self, batch: Batch) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss: torch.Tensor = self._compiled_loss(
                torch.from_numpy(batch.tokens), torch.from_numpy(batch.places),
                torch.from_numpy(batch.targets), torch.from_numpy(batch.weights),
            )  # fmt: skip
        return loss

    def save(self) -> None:
        """Write the checkpoint and export the GGUF, each replaced whole."""
        state = {
            "network": self.network.tensors(),
            "momenta": self.muon.momenta,
            "adam": self.adam.state_dict(),
            "step": self.step, "wall_s": self.wall_s, "cpu_s": self.cpu_s,
            "rng": self.batches.rng.getstate(),
        }  # fmt: skip
        part = self.out / "checkpoint.part"
        torch.save(state, part)
        part.replace(self.out / "checkpoint.pt")
        gguf_export.export_model(self.out / "paddler-demo.gguf", self.network, self.vocabulary)

    def load(self) -> None:
        """Go on from the checkpoint."""
        state = torch.load(self.out / "checkpoint.pt", weights_only=True)
        self.network.load(state["network"])
        self.muon.momenta = state["momenta"]
        self.adam.load_state_dict(state["adam"])
        self.step, self.wall_s, self.cpu_s = state["step"], state["wall_s"], state["cpu_s"]
        self.batches.rng.setstate(state["rng"])

    def report_probes(self, count: int = 48) -> None:
        """Print exactness and smallest margins per class."""
        for name, probes in standard_probes(self.encoder, 77, count).items():
            verdicts = judge(self.network, probes)
            exact = sum(verdict.exact for verdict in verdicts) / len(verdicts)
            margins = [verdict.margin for verdict in verdicts if verdict.exact] or [0.0]
            _say(f"    {name:16} {exact:6.1%}  smallest margin {min(margins):.2f}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class Clock:
    """Adds this process's wall and CPU time to what the run had before."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._wall_s = run.wall_s - time.monotonic()
        self._cpu_s = run.cpu_s - time.process_time()

    def read(self) -> None:
        """Bring the run's times up to date."""
        self._run.wall_s = self._wall_s + time.monotonic()
        self._run.cpu_s = self._cpu_s + time.process_time()


class LossLog:
    """Writes the mean loss of every 50 steps to losses.csv and the screen."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._rows = csv.writer(file)
        self._losses: list[float] = []

    def add(self, run: Run, loss: float) -> None:
        """Take the loss of one step."""
        self._losses.append(loss)
        if run.step % 50:
            return
        mean = sum(self._losses) / len(self._losses)
        self._losses.clear()
        tokens = run.step * TOKENS_PER_STEP
        row = (run.step, tokens, f"{run.wall_s:.0f}", f"{run.cpu_s:.0f}", f"{mean:.4f}")
        self._rows.writerow(row)
        self._file.flush()
        _say("step {} tokens {} wall {} s cpu {} s loss {}".format(*row))


def main(arguments: list[str] | None = None) -> None:
    """Train until the schedule ends."""
    options = _parse(arguments)
    run = Run(options)
    if options.resume and (options.out / "checkpoint.pt").exists():
        run.load()
    parameters = sum(p.numel() for p in run.network.tensors().values())
    _say(f"{parameters} parameters, {len(run.vocabulary.tokens)} tokens in the vocabulary")
    saved = run.wall_s
    with (options.out / "losses.csv").open("a", newline="") as file:
        log = LossLog(file)
        started = Clock(run)
        while run.progress < 1.0 and run.step != options.stop_after:
            log.add(run, run.train_step())
            started.read()
            if run.wall_s - saved > 60.0 * options.save_every:
                saved = run.wall_s
                run.save()
                run.report_probes()
    run.save()
    run.report_probes(192)


if __name__ == "__main__":
    main()
