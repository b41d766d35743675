"""Benchmarks: counts compared with hand-computed values and PyTorch's counter, and every part on two-layer models."""

import math
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import accuracy
import bench_stages
import cost_model
import plain
import profile_stages
from arithmetic import Count, Encoder, counting, forward_flops, matrix_rate, training_flops
from parts import Reviews

from teachback.data.encoding import LengthBucketSampler, encode
from teachback.models.loading import load_tokenizer

ROWS, EPOCHS, EPISODES, BATCH = 16, 2, 1, 4
ARGUMENTS = (
    f"--teacher_model scratch:tiny --student_layers 1 --rows {ROWS} --epochs {EPOCHS} --episodes {EPISODES} "
    f"--batch_size {BATCH} --rounds 1"
)

# Counting


def bert(layers=2, width=8) -> BertModel:
    config = BertConfig(
        vocab_size=50, hidden_size=width, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=12,
        max_position_embeddings=16, attn_implementation="eager",
    )  # fmt: skip
    return BertModel(config, add_pooling_layer=False)


def test_operation_counts_equal_hand_computed_values():
    encoder = Encoder(layers=2, width=4, inner=8)
    assert encoder.weights == 2 * (4 * 16 + 2 * 32)
    # Sequences of 3 and 5 tokens: 8 tokens, 9 + 25 squares.
    assert forward_flops(encoder, 8, 34) == 2 * 256 * 8 + 4 * 2 * 4 * 34
    assert training_flops(encoder, 8, 34) == 3 * forward_flops(encoder, 8, 34)


def test_operation_counts_equal_those_of_pytorch():
    model, ids = bert(), torch.ones(3, 7, dtype=torch.long)
    encoder = Encoder.of(model.config)
    with FlopCounterMode(display=False) as seen:
        states = model(input_ids=ids).last_hidden_state
    assert seen.get_total_flops() == forward_flops(encoder, 3 * 7, 3 * 7**2)
    with FlopCounterMode(display=False) as seen:
        states.sum().backward()
    assert seen.get_total_flops() == 2 * forward_flops(encoder, 3 * 7, 3 * 7**2)


def test_real_tokens_and_padding_are_counted_separately():
    encoder, count = Encoder(1, 4, 8), Count()
    count.add(encoder, torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]]), forward_flops)
    assert (count.tokens, count.places, count.padding) == (5, 8, 3 / 8)
    assert count.flops == forward_flops(encoder, 5, 17)
    assert count.flops_with_padding == forward_flops(encoder, 8, 32)


def test_training_and_inference_passes_are_counted_separately(tmp_path):
    model, forward = bert(), BertModel.forward
    model.save_pretrained(tmp_path)
    mask = torch.tensor([[1, 1, 0]])
    with counting(tmp_path) as counts:
        model(input_ids=torch.ones(1, 3, dtype=torch.long), attention_mask=mask)
        with torch.no_grad():
            model(input_ids=torch.ones(2, 3, dtype=torch.long), attention_mask=mask.repeat(2, 1))
    encoder = Encoder.of(model.config)
    assert (counts.learning.tokens, counts.answering.tokens) == (2, 4)
    assert counts.flops == training_flops(encoder, 2, 4) + forward_flops(encoder, 4, 8)
    assert BertModel.forward is forward


def test_the_rate_of_matrix_products_is_positive():
    assert matrix_rate(torch.device("cpu"), torch.float32, size=64, products=2) > 0


# The plain loops, which are the baseline


def test_the_policy_of_the_plain_loops_prefers_rewarded_domains():
    torch.manual_seed(0)
    model = SimpleNamespace(device=torch.device("cpu"), base_model=bert())
    model.base_model.pooler = SimpleNamespace(dense=torch.nn.Linear(8, 8))
    policy = plain.Policy(model, ["a", "b"], rate=0.1)
    for _ in range(30):
        policy.learn([1.0 if policy.pick() == "a" else 0.0 for _ in range(8)])
    assert [policy.pick() for _ in range(20)].count("a") > 17


def test_losses_and_weights_of_the_plain_loops_equal_hand_computed_values():
    assert plain.difference(torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.zeros(2, 2)).tolist() == [5.0, 0.0]
    sure = plain.certainty(torch.tensor([[0.0, 0.0], [0.0, 100.0]]), torch.tensor([0, 1]))
    assert sure.tolist() == pytest.approx([0.5, 1.0])
    batch = {"label": torch.tensor([0]), "weight": torch.tensor([1.0])}
    weight = plain.expertise(torch.tensor([[0.0, 0.0]]), batch)
    assert weight.item() == pytest.approx(2 / (math.exp(0.25) + 1))


# Every part, on generated reviews


@pytest.fixture(scope="module")
def timed(tmp_path_factory) -> tuple[dict, Path]:
    """Report of all parts, and the folder in which they ran."""
    folder = tmp_path_factory.mktemp("timed")
    random.seed(0)
    report = bench_stages.main([*ARGUMENTS.split(), "--folder", str(folder), "--json", str(folder / "report.json")])
    return report, folder


def part(report: dict, name: str) -> dict:
    return next(one for one in report["parts"] if one["part"] == name)


def test_every_part_is_timed_and_reported(timed):
    report, folder = timed
    assert [one["part"] for one in report["parts"]] == list(bench_stages.STAGES)
    assert (folder / "report.json").is_file()
    for one in report["parts"]:
        assert one["ratio"] == pytest.approx(one["plain"]["seconds"] / one["ours"]["seconds"])
        assert one["floor_seconds"] < one["ours"]["seconds"] and one["plain"]["counts"]["learning"]["places"] > 0


def test_counts_of_tokens_and_padding_equal_those_of_the_sampler(timed):
    report, folder = timed
    reviews = Reviews(bench_stages.parser().parse_args([*ARGUMENTS.split(), "--folder", str(folder)]))
    lengths = encode(reviews.books, load_tokenizer(reviews.teacher_model), 128).lengths
    sampler, places = LengthBucketSampler(lengths, BATCH, seed=42), 0
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        order = list(sampler)
        places += sum(BATCH * max(lengths[i] for i in order[s : s + BATCH]) for s in range(0, ROWS, BATCH))
    seen = part(report, "3")["ours"]["counts"]["learning"]
    assert (seen["tokens"], seen["places"]) == (EPOCHS * sum(lengths), places)
    assert part(report, "45")["ours"]["counts"]["learning"]["tokens"] == 2 * seen["tokens"]


def test_the_plain_loops_pad_to_128_and_run_the_teacher_at_each_step(timed):
    report, _ = timed
    for name, stages in (("45", 2), ("45small", 2)):
        counts = part(report, name)["plain"]["counts"]
        assert counts["learning"]["places"] == counts["answering"]["places"] == stages * EPOCHS * ROWS * 128


def test_both_sides_of_stage_6_take_equally_many_student_steps(timed):
    report, folder = timed
    curriculum = folder / "quizzes/outputs/sample/seed42/books/curriculum"
    steps = len((curriculum / "trajectory.tsv").read_text().splitlines()) - 1
    for name in ("6", "6level"):
        assert part(report, name)["plain"]["counts"]["learning"]["places"] == steps * 8 * 128


def test_the_small_student_has_the_teachers_vocabulary(timed):
    _, folder = timed
    place = folder / "reviews/outputs/sample/seed42"
    teacher, student = (load_tokenizer(str(place / name)) for name in ("teacher-single-books", "books/student_second"))
    assert teacher.get_vocab() == student.get_vocab()


def test_students_of_all_three_implementations_are_scored(timed, capsys):
    _, folder = timed
    report = bench_stages.main([*ARGUMENTS.split(), "--folder", str(folder), "--accuracy", "--seeds", "1"])
    assert list(report["accuracy"]) == [accuracy.FAST, accuracy.SLOW, accuracy.PLAIN]
    assert all(0 <= value <= 1 for values in report["accuracy"].values() for value in values)
    assert "minus ours" in capsys.readouterr().out


def test_differences_of_accuracy_are_paired_by_seed():
    told = accuracy.report({accuracy.FAST: [0.80, 0.90], accuracy.PLAIN: [0.82, 0.88]})
    assert "85.0 ± 7.1" in told and "0.0 ± 2.8   +2.0 -2.0" in told


def test_a_part_is_profiled(timed):
    _, folder = timed
    arguments = bench_stages.parser().parse_args([*ARGUMENTS.split(), "--folder", str(folder), "--stages", "3"])
    ((one, _),) = bench_stages.chosen_parts(arguments)
    told = profile_stages.profiled(one)
    assert "matrix products of weights" in told and "training: backward pass" in told


def test_profiled_operations_are_grouped_by_kind():
    names = {"aten::addmm": 3, "aten::mm": 1, "aten::bmm": 2, "aten::_fused_adamw_": 4, "aten::add": 5}
    events = [SimpleNamespace(key=key, self_cpu_time_total=1e6 * value) for key, value in names.items()]
    found = profile_stages.by_kind(events)
    assert found["matrix products of weights"] == 4 and found["products of attention and its loss"] == 2
    assert found["AdamW"] == 4 and found["other operations"] == 5 and sum(found.values()) == 15


# Cost model of a paper's table

ONE = cost_model.Domain("one", rows=64, tokens=10, rms=10)


def test_costs_of_training_and_inference_equal_hand_computed_values():
    small = Encoder(1, 4, 8)
    trained = cost_model.training("3", [ONE], small, epochs=2, batch_size=32)
    assert (trained.flops, trained.steps) == (2 * training_flops(small, 640, 6400), 4)
    asked = cost_model.answers("5", ONE, small, 32)
    assert (asked.flops, asked.steps) == (forward_flops(small, 320, 3200), 0.5)
    assert cost_model.states(ONE, small, layers=2).disk == 2 * 4 * 7 * 640  # half precision, embeddings, 2 x (h, q, k)


def test_hours_are_the_larger_of_the_times_of_arithmetic_and_steps():
    machine = cost_model.Machine(tflops=2, utilisation=0.5, step_ms=10)
    assert machine.hours(cost_model.Work("3", 3600e12, 10)) == pytest.approx(1)
    assert machine.hours(cost_model.Work("3", 1.0, 720_000)) == pytest.approx(2)


def test_teachers_are_shared_and_states_cached_once_per_domain_and_teacher():
    work = list(cost_model.meta_kd(cost_model.AMAZON))
    assert len([one for one in work if one.stage == "3"]) == 4 + 3
    assert len([one for one in work if one.disk]) == 4 * 4
    assert len([one for one in work if one.stage == "5" and one.steps > 100]) == 4 * 5


def test_costs_of_a_curriculum_equal_hand_computed_values():
    learning, *_ = [one for one in cost_model.curriculum(ONE, (ONE,), episodes=3) if one.flops > 0][2:]
    step = ONE.flops(training_flops, cost_model.HALF, 8)
    level = ONE.flops(forward_flops, cost_model.HALF, 4)  # half of a quiz of 6.4 rows, rounded up
    assert learning.steps == 3 and learning.flops == pytest.approx(3 * (step + level + level))


def test_the_documentation_shows_the_output_of_the_cost_model(capsys):
    cost_model.main([])
    shown = (Path(__file__).parents[1] / "docs/performance.md").read_text()
    assert capsys.readouterr().out.strip() in shown
