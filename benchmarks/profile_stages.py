"""Profile of a stage, by kind of operation and by activity of the code. Arguments as in `bench_stages.py`.

    PYTHONPATH=src python benchmarks/profile_stages.py --teacher_model <folder> --source ../shared/data --stages 45 --rows 400

Each part runs twice, under torch's profiler and under Python's, which slow it down: read shares, not seconds.
"""

import cProfile
import pstats
import re
import tempfile
import time
from pathlib import Path

from bench_stages import chosen_parts, parser
from parts import Part
from torch.profiler import ProfilerActivity, profile

# Kind of operation -> pattern of its names, of which the first match counts; seconds exclude nested operations.
KINDS = {
    "matrix products of weights": r"aten::(mm|addmm|linear)|mkldnn",
    "products of attention and its loss": r"aten::(bmm|baddbmm|matmul)",
    "attention kernel": r"aten::_scaled_dot_product",
    "softmax": r"aten::_(log_)?softmax|aten::_safe_softmax",
    "dropout's random numbers": r"aten::(bernoulli_|native_dropout|random_)",
    "layer norm": r"aten::native_layer_norm",
    "activation": r"aten::gelu|aten::tanh",
    "embeddings": r"aten::embedding|aten::index_select",
    "AdamW": r"aten::(_fused_adamw_|sqrt|addcdiv_|addcmul_|lerp_)|Optimizer\.",
    "norm of gradients": r"aten::linalg_vector_norm|aten::_foreach_norm",
    "copies, casts, filling": r"aten::(copy_|fill_|cat|clone|empty|zero_|_to_copy|to|contiguous)",
    "fetching batches": r"enumerate\(DataLoader\)",
    "other operations": r"",
}
# Activity -> file and function whose cumulative time counts. Activities may be nested, so shares do not add up to one.
DOINGS = {
    "training: forward pass and loss": ("trainer.py", "compute_loss"),
    "training: backward pass": ("graph.py", "_engine_run_backward"),
    "training: optimizer": ("optimizer.py", "wrapper"),
    "training: norm of gradients": ("clip_grad.py", "clip_grad_norm_"),
    "fetching and padding batches": ("encoding.py", "__call__"),
    "teacher: states written to disk": ("teacher_states.py", "_write"),
    "teacher: logits": ("teacher_outputs.py", "teacher_logits"),
    "pooled states of teacher and student": ("teacher_outputs.py", "features"),
    "evaluation at the end": ("trainer.py", "evaluate"),
    "stage 6: learning steps": ("curriculum.py", "learn"),
    "stage 6: rewards": ("curriculum.py", "_level"),
    "stage 6: scoring on dev": ("curriculum_run.py", "_score"),
    "stage 6: checkpoints": ("curriculum_run.py", "_save"),
    "tokenising": ("encoding.py", "encode"),
    "loading models": ("modeling_utils.py", "from_pretrained"),
    "loading tokenizers": ("models.py", "load_tokenizer"),
    "hashing inputs": ("files.py", "sha256"),
    "writing the folder": ("runs.py", "publishing"),
    "writing weights": ("modeling_utils.py", "save_pretrained"),
    "pictures": ("figure.py", "savefig"),
}


def by_kind(events) -> dict[str, float]:
    """Seconds of the profiler's averaged events by kind, in the order of `KINDS`."""
    seconds = dict.fromkeys(KINDS, 0.0)
    for event in events:
        kind = next(kind for kind, pattern in KINDS.items() if re.match(pattern, event.key))
        seconds[kind] += event.self_cpu_time_total / 1e6
    return seconds


def by_doing(stats: pstats.Stats) -> dict[str, float]:
    """Cumulative seconds of each of `DOINGS` that was called."""
    seconds: dict[str, float] = {}
    for (file, _, function), (_, _, _, below, _) in stats.stats.items():  # type: ignore[attr-defined]  # typeshed lacks it
        for name, place in DOINGS.items():
            if place == (Path(file).name, function):
                seconds[name] = max(seconds.get(name, 0.0), below)
    return {name: seconds[name] for name in DOINGS if name in seconds}


def profiled(part: Part) -> str:
    """Profile a part; returns both tables as text."""
    part.prepare()
    part.forget()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        start = time.perf_counter()
        part.ours()
        total = time.perf_counter() - start
    kinds = by_kind(seen.key_averages())
    kinds["outside of operations: Python, files"] = total - sum(kinds.values())
    part.forget()
    profiler, start = cProfile.Profile(), time.perf_counter()
    profiler.runcall(part.ours)
    doings, whole = by_doing(pstats.Stats(profiler)), time.perf_counter() - start
    return "\n".join([f"\n{part.title}", *shares(kinds, total), "", *shares(doings, whole)])


def shares(seconds: dict[str, float], total: float) -> list[str]:
    return [f"  {name:40}{value:9.2f} s{value / total:8.1%}" for name, value in seconds.items()]


def main(argv: list[str] | None = None) -> None:
    made = parser()
    made.description = __doc__
    arguments = made.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        arguments.folder = arguments.folder or Path(temporary)
        found = [profiled(part) for part, _ in chosen_parts(arguments)]
    print("\n".join(found))


if __name__ == "__main__":
    main()
