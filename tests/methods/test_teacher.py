import copy
import json
import logging
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import (
    BOOKS,
    CAUSE,
    DVD,
    GENRE,
    KITCHEN,
    NO_DROPOUT,
    SCORE,
    SUITE,
    batch,
    chosen,
    embedding_gradients,
    mixed_batch,
    mixed_chosen,
    padded,
    tiny_teacher,
    tokenizer,
)
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification

from teachback.core.arguments import TeacherArguments
from teachback.core.errors import TeachbackError
from teachback.core.training_arguments import OptimizerArguments
from teachback.data.encoding import Collator
from teachback.data.schema import Domain, Row, Suite
from teachback.data.suite_data import SuiteData, encode_rows
from teachback.inference.baselines import majority_scores
from teachback.inference.scores import predicted_labels, report_scores, score_by_domain
from teachback.methods.losses import domain_corruption_loss, hard_label_loss
from teachback.methods.teacher import TeacherTraining, embeds_domains, head_name, head_names, load_teacher
from teachback.models.heads import ABSENT_CLASS
from teachback.models.layers import cut_layers, final_layer
from teachback.training.trainer import DistillationTrainer

MIXED = (BOOKS, GENRE, KITCHEN)  # two heads of different sizes, one shared by two domains
KINDS = pytest.mark.parametrize(
    ("kind", "domains", "transferable"),
    [("meta", (BOOKS, DVD, KITCHEN), True), ("meta", MIXED, True), ("meta", MIXED, False), ("mix", MIXED, False),
     ("mtl", (BOOKS, DVD, KITCHEN), False), ("mtl", MIXED, False), ("single", (DVD,), False)],
)  # fmt: skip


def training(kind="meta", domains=(BOOKS, DVD, KITCHEN), model=None, **arguments):
    """Training module in eval mode; a meta-teacher has the domain loss unless ``use_domain_loss`` is off."""
    arguments = TeacherArguments(teacher=kind, **arguments)
    transferable, embeds = kind == "meta" and arguments.use_domain_loss, embeds_domains(arguments.domain_labels)
    teacher = tiny_teacher(kind, domains, transferable, embeds_domains=embeds, **(model or {}))
    return TeacherTraining(teacher, arguments).eval()


def loss(module, rows):
    torch.manual_seed(0)  # false domains are random
    return module(**rows)["loss"]


def teacher_outputs(teacher, rows):
    with torch.no_grad():
        return teacher.outputs(rows, hidden_states=True)


def hard_losses(module, rows):
    return cross_entropy(teacher_outputs(module.teacher, rows).logits, rows["label"], reduction="none")


# Heads


def test_head_names_by_kind_of_teacher():
    assert list(head_names("meta", list(MIXED))) == list(head_names("mix", list(MIXED))) == ["sentiment", "topic"]
    assert list(head_names("mtl", list(MIXED))) == ["books", "genre", "kitchen"]


def test_mtl_teacher_uses_the_head_of_each_rows_domain():
    teacher, rows = tiny_teacher("mtl", (BOOKS, DVD, KITCHEN), False), batch()
    outputs = teacher_outputs(teacher, rows)
    heads = [final_layer(teacher.classifier.model), *teacher.classifier.other_heads]
    for row, domain in enumerate(rows["domain"]):
        torch.testing.assert_close(outputs.logits[row], heads[domain](outputs.pooled)[row])
        assert teacher.head_for((BOOKS, DVD, KITCHEN)[domain]) is heads[domain]


def test_domains_that_share_a_head_share_its_layer():
    teacher = tiny_teacher(domains=MIXED)
    assert teacher.head_for(BOOKS) is teacher.head_for(KITCHEN) is final_layer(teacher.classifier.model)
    assert teacher.head_for(GENRE).out_features == 3
    outputs = teacher_outputs(teacher, batch())
    assert (outputs.logits[[0, 2], 2] == ABSENT_CLASS).all() and outputs.logits[1, 2] > ABSENT_CLASS


def test_student_cut_from_a_teacher_gets_the_head_of_its_domain():
    teacher = tiny_teacher("mtl", MIXED, False)
    student = cut_layers(teacher.classifier.model, [0], GENRE, teacher.head_for(GENRE))
    assert (
        torch.equal(final_layer(student).weight, teacher.head_for(GENRE).weight)
        and final_layer(student).out_features == 3
    )


# The loss


@pytest.mark.parametrize("form", ["paper", "code"])
def test_meta_teacher_loss_by_hand(form):
    domains = (BOOKS, DVD)  # with two domains the false one is always the other, so nothing is random
    module, rows = training(domains=domains, domain_loss_form=form, domain_loss_weight=0.7), batch()
    rows["domain"] = torch.tensor([0, 1, 0])
    outputs, teacher = teacher_outputs(module.teacher, rows), module.teacher
    values = []
    for row, length in enumerate((9, 4, 6)):
        mean = outputs.hidden_states[-1][row, :length].mean(0)
        knowledge = torch.tanh(
            teacher.transferable.dense(teacher.transferable.domain_embedding.weight[rows["domain"][row]] + mean)
        )
        corruption = -teacher.domain_classifier(knowledge).log_softmax(0)[1 - rows["domain"][row]].item()
        hard = -outputs.logits[row].log_softmax(0)[rows["label"][row]].item()
        t = rows["weight"][row].item()
        values.append(t * hard + 0.7 * corruption if form == "paper" else t * (hard + 0.7 * corruption))
    assert loss(module, rows).item() == pytest.approx(sum(values) / 3, rel=1e-5)


def test_domain_loss_and_sample_weights_can_be_switched_off():
    rows = batch()
    module = training(use_domain_loss=False)
    assert module.teacher.transferable is None
    hard = hard_losses(module, rows)
    torch.testing.assert_close(loss(module, rows), (rows["weight"] * hard).mean())
    torch.testing.assert_close(loss(training(use_domain_loss=False, use_sample_weights=False), rows), hard.mean())
    without_weight = training(domain_loss_weight=0.0)
    torch.testing.assert_close(loss(without_weight, rows), (rows["weight"] * hard_losses(without_weight, rows)).mean())


def test_domain_loss_of_a_zero_classifier_is_that_of_chance():
    module, rows = training(domain_loss_weight=1.0, use_sample_weights=False), batch()
    for parameter in module.teacher.domain_classifier.parameters():
        torch.nn.init.zeros_(parameter)
    assert loss(module, rows).item() == pytest.approx(hard_losses(module, rows).mean().item() + math.log(3), rel=1e-5)


def test_regression_rows_of_a_mixed_batch_have_squared_error():
    module, rows = training("mtl", (BOOKS, SCORE)), batch()
    rows["domain"], rows["label"] = torch.tensor([0, 1, 0]), torch.tensor([1.0, 2.5, 0.0])
    logits = teacher_outputs(module.teacher, rows).logits
    expected = [
        cross_entropy(logits[0], torch.tensor(1)),
        (logits[1, 0] - 2.5).square(),
        cross_entropy(logits[2], torch.tensor(0)),
    ]
    torch.testing.assert_close(loss(module, rows), torch.stack(expected).mean())


# Domains of `mixed_batch`: a text, questions with choices, a number; no row is of the fourth.
FOUR_KINDS = (BOOKS, CAUSE, SCORE, GENRE)


def test_mixed_batch_loss_is_the_mean_of_the_single_row_losses():
    module, rows = training(domains=FOUR_KINDS, domain_labels="permuted", domain_loss_weight=0.0), mixed_batch()
    together = loss(module, rows)
    alone = [loss(module, mixed_chosen(rows, [i])) for i in range(4)]
    torch.testing.assert_close(together, sum(alone) / 4, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(loss(module, mixed_chosen(rows, [3, 2, 1, 0])), together, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(loss(module, mixed_batch(width=40)), together, rtol=1e-4, atol=1e-6)
    logits = teacher_outputs(module.teacher, rows).logits
    hard = [
        cross_entropy(logits[0, :2], torch.tensor(1)), cross_entropy(logits[1, :2], torch.tensor(1)),
        (logits[2, 0] + 0.7).square(), cross_entropy(logits[3, :2], torch.tensor(0)),
    ]  # fmt: skip
    torch.testing.assert_close(together, (torch.stack(hard) * rows["weight"]).mean())


def test_mixed_batch_gradient_is_the_mean_of_the_single_row_gradients():
    module, rows = training("mtl", FOUR_KINDS), mixed_batch()

    def gradients(*batches):
        module.zero_grad()
        sum(loss(module, one) for one in batches).backward()
        return {name: p.grad.clone() for name, p in module.named_parameters()}

    together, alone = gradients(rows), gradients(*(mixed_chosen(rows, [i]) for i in range(4)))
    largest = max(one.abs().max().item() for one in alone.values())
    for name, one in together.items():
        torch.testing.assert_close(4 * one, alone[name], rtol=1e-3, atol=1e-5 * largest)
    assert (module.teacher.head_for(GENRE).weight.grad == 0).all()
    assert all(module.teacher.head_for(domain).weight.grad.abs().max() > 0 for domain in FOUR_KINDS[:3])


def test_transferable_knowledge_of_a_question_is_the_mean_over_its_choices():
    teacher, rows = tiny_teacher(domains=FOUR_KINDS), mixed_batch()
    found = teacher.transferable(teacher_outputs(teacher, rows).hidden_states[-1], rows)
    sequences = {name: rows[name] for name in ("input_ids", "attention_mask")}
    single = sequences | {"domain": torch.tensor([0, 1, 1, 2, 1, 1])}
    each = teacher.transferable(teacher_outputs(teacher, single).hidden_states[-1], single)
    expected = torch.stack([each[0], each[1:3].mean(0), each[3], each[4:6].mean(0)])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_domain_loss_counts_a_question_once():
    module, rows = training(domains=(BOOKS, CAUSE), domain_loss_weight=0.7), mixed_batch((0, 1, 0, 1))
    rows["label"] = torch.tensor([1, 1, 0, 0])
    alone = [loss(module, mixed_chosen(rows, [i])) for i in range(4)]  # with two domains the false one is always the other
    torch.testing.assert_close(loss(module, rows), sum(alone) / 4, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["mix", "mtl", "single"])
def test_loss_of_baseline_teachers_is_plain_cross_entropy(kind):
    domains = (BOOKS,) if kind == "single" else (BOOKS, DVD, KITCHEN)
    module, rows = training(kind, domains), batch()
    rows["domain"] = rows["domain"] % len(domains)
    torch.testing.assert_close(loss(module, rows), hard_losses(module, rows).mean())


@pytest.mark.parametrize("labels", ["false", "permuted"])
def test_domain_labels_are_false_or_permuted(labels, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "teachback.methods.teacher.domain_corruption_loss", lambda x, z: drawn.append(z) or domain_corruption_loss(x, z)
    )
    module, rows = training(domain_labels=labels), batch((5,) * 9)
    for _ in range(20):
        module(**rows)
    drawn = torch.stack(drawn)
    assert (drawn == rows["domain"]).any() == (labels == "permuted")
    assert all((draw.sort().values == rows["domain"].sort().values).all() for draw in drawn) == (labels == "permuted")
    assert len({tuple(draw.tolist()) for draw in drawn}) > 10  # new labels for every batch

def domain_gradients(labels: str) -> tuple[dict[str, torch.Tensor], TeacherTraining, dict]:
    """Gradients of the domain loss alone, and the module and rows that gave them."""
    module, rows = training(domain_labels=labels, domain_loss_weight=1.0), batch((5,) * 6)
    rows["weight"] = torch.zeros(6)  # turns the cross-entropy off
    loss(module, rows).backward()
    return {name: p.grad for name, p in module.teacher.named_parameters() if p.grad is not None}, module, rows


def domain_logits(module, rows, knowledge_of=lambda knowledge: knowledge) -> torch.Tensor:
    outputs = module.teacher.outputs(rows, hidden_states=True)
    knowledge = torch.tanh(module.teacher.transferable(outputs.hidden_states[-1], rows))
    return module.teacher.domain_classifier(knowledge_of(knowledge))


def test_reversal_trains_the_classifier_and_negates_the_encoders_gradient():
    found, module, rows = domain_gradients("reversal")
    assert module.teacher.transferable.domain_embedding is None
    for sign, of_classifier in ((1, True), (-1, False)):
        module.zero_grad()
        losses = domain_corruption_loss(domain_logits(module, rows), rows["domain"])
        recognised = losses.detach() < math.log(3)
        assert 0 < recognised.sum() < len(losses)  # the batch has recognised and unrecognised rows
        (losses if of_classifier else losses * recognised).mean().backward()
        for name, parameter in module.teacher.named_parameters():
            if name.startswith("domain_classifier") == of_classifier and name in found and parameter.grad is not None:
                torch.testing.assert_close(found[name], sign * parameter.grad, rtol=1e-3, atol=1e-6)
    assert found["transferable.dense.weight"].abs().max() > 0


def test_reversal_gives_the_encoder_no_gradient_for_unrecognised_domains():
    module, rows = training(domain_labels="reversal", domain_loss_weight=1.0), batch((5,) * 6)
    rows["weight"] = torch.zeros(6)
    with torch.no_grad():  # the classifier is certain of a domain that no row has
        module.teacher.domain_classifier.bias.copy_(torch.tensor([-9.0, -9.0, 9.0]))
    rows["domain"] = torch.tensor([0, 1] * 3)
    loss(module, rows).backward()
    assert module.teacher.domain_classifier.bias.grad.abs().max() > 0.1
    assert not module.teacher.transferable.dense.weight.grad.any()


def test_uniform_labels_train_the_knowledge_and_true_labels_the_classifier():
    found, module, rows = domain_gradients("uniform")
    module.zero_grad()
    cross_entropy(domain_logits(module, rows, torch.Tensor.detach), rows["domain"]).backward()
    torch.testing.assert_close(found["domain_classifier.weight"], module.teacher.domain_classifier.weight.grad)
    module.zero_grad()
    (-domain_logits(module, rows).log_softmax(-1).mean()).backward()
    expected = module.teacher.transferable.dense.weight.grad
    torch.testing.assert_close(found["transferable.dense.weight"], expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("labels", "knows"), [("false", True), ("reversal", False), ("uniform", False)])
def test_only_false_labels_put_the_domain_into_transferable_knowledge(labels, knows):
    torch.manual_seed(0)
    module = training(domain_labels=labels, domain_loss_weight=1.0, use_sample_weights=False)
    for part in (module.teacher.transferable, module.teacher.domain_classifier):
        for parameter in part.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    learnt = [*module.teacher.transferable.parameters(), *module.teacher.domain_classifier.parameters()]
    rows, optimizer = batch((5,) * 9), torch.optim.Adam(learnt, lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        module(**rows)["loss"].backward()
        optimizer.step()
    true = domain_logits(module, rows).softmax(-1)[torch.arange(9), rows["domain"]]
    assert (true < 0.05).all() if knows else abs(true.mean() - 1 / 3) < 0.15
    value = domain_corruption_loss(domain_logits(module, rows), (rows["domain"] + 1) % 3).mean()
    assert (value < (math.log(2) + math.log(3)) / 2) == knows


@pytest.mark.parametrize("score", [0.0, -0.3])  # a negative score must not reward a wrong answer
def test_sample_weights_apply_only_to_cross_entropy_in_the_paper_form(score):
    rows = batch()
    rows["weight"] = torch.tensor([0.5, score, 0.2])
    module = training(use_domain_loss=False)
    found = embedding_gradients(module.teacher.classifier.model, lambda: loss(module, rows))
    assert (found[1] == 0).all() and found[0].abs().max() > 0 and found[2].abs().max() > 0
    for form, silent in (("paper", False), ("code", True)):
        module = training(domain_loss_form=form)
        found = embedding_gradients(module.teacher.classifier.model, lambda: loss(module, rows))
        assert (found[1] == 0).all() == silent and found[0].abs().max() > 0


@pytest.mark.parametrize("width", [16, 128])
@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "electra"])
def test_padding_changes_neither_loss_nor_gradients(width, architecture):
    module, rows = training(model={"architecture": architecture}), batch()
    narrow = embedding_gradients(module.teacher.classifier.model, lambda: loss(module, rows))
    wide = embedding_gradients(module.teacher.classifier.model, lambda: loss(module, padded(rows, width)))
    torch.testing.assert_close(loss(module, padded(rows, width)), loss(module, rows), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(wide[:, :9], narrow, rtol=1e-3, atol=1e-5)


def test_loss_does_not_depend_on_row_order_and_batches_may_have_one_row():
    module, rows = training(domains=(BOOKS, DVD)), batch()
    rows["domain"] = torch.tensor([0, 1, 0])
    torch.testing.assert_close(loss(module, chosen(rows, [2, 0, 1])), loss(module, rows))
    alone = [loss(module, chosen(rows, [i])).item() for i in range(3)]
    assert loss(module, rows).item() == pytest.approx(sum(alone) / 3, rel=1e-5)
    assert module(**chosen(rows, [0]))["logits"].shape == (1, 2)


def test_one_step_changes_every_parameter_of_the_meta_teacher():
    module = training(domains=MIXED).train()
    rows = batch()
    rows["label"] = torch.tensor([1, 2, 0])
    before = copy.deepcopy(module.state_dict())
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01, weight_decay=0.0)
    loss(module, rows).backward()
    optimizer.step()
    unchanged = {name for name, value in module.named_parameters() if torch.equal(value, before[name])}
    assert all("key.bias" in name for name in unchanged)  # softmax ignores a constant that is added to all scores


def test_rows_of_a_domain_give_heads_of_other_domains_no_gradient():
    module, rows = training("mtl", (BOOKS, DVD)), batch()
    rows["domain"] = torch.zeros(3, dtype=torch.long)
    loss(module, rows).backward()
    assert (module.teacher.head_for(DVD).weight.grad == 0).all()
    assert module.teacher.head_for(BOOKS).weight.grad.abs().max() > 0


def test_terms_are_logged_in_training_mode_only():
    module, rows = training(model=NO_DROPOUT), batch()
    loss(module, rows)
    assert module.take_terms() == {}
    loss(module.train(), rows)
    assert module.take_terms()["hard"] == pytest.approx(hard_losses(module, rows).mean().item(), rel=1e-5)


# Saving and loading


def save(teacher, folder):
    teacher.save(folder, tokenizer())
    return {
        "arguments": {"teacher": teacher.kind, "trained_domains": [d.name for d in teacher.domains]},
        "transferable": teacher.transferable is not None,
    }


@KINDS
def test_loaded_teacher_gives_bit_identical_outputs(tmp_path, kind, domains, transferable):
    teacher = tiny_teacher(kind, domains, transferable)
    record = json.loads(json.dumps(save(teacher, tmp_path)))
    loaded = load_teacher(tmp_path, record, SUITE)
    rows = batch()
    rows["domain"] = rows["domain"] % len(domains)
    assert not loaded.training
    assert torch.equal(teacher_outputs(loaded, rows).logits, teacher_outputs(teacher, rows).logits)
    if transferable:
        states = teacher_outputs(teacher, rows).hidden_states[-1]
        assert torch.equal(loaded.transferable(states, rows), teacher.transferable(states, rows))
    assert loaded.state_dict().keys() == teacher.state_dict().keys()
    assert all(torch.equal(value, teacher.state_dict()[name]) for name, value in loaded.state_dict().items())


@KINDS
def test_saved_teacher_is_a_plain_checkpoint_and_a_training_only_file(tmp_path, kind, domains, transferable):
    teacher = tiny_teacher(kind, domains, transferable)
    save(teacher, tmp_path)
    plain, report = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert list(plain.config.label2id) == list(domains[0].labels)
    rest = set(load_file(tmp_path / "training_only.safetensors"))
    assert any(name.startswith("transferable.") for name in rest) == transferable
    assert rest == set(teacher.state_dict()) - {f"classifier.model.{name}" for name in plain.state_dict()}
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".pkl")]


def edit_weights(path, edit):
    weights = load_file(path)
    edit(weights)
    save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "name",
    [
        "transferable.dense.weight",
        "transferable.domain_embedding.weight",
        "domain_classifier.bias",
        "classifier.other_heads.0.weight",
    ],
)
def test_missing_training_only_weight_is_an_error(tmp_path, name):
    record = save(tiny_teacher(domains=MIXED), tmp_path)
    edit_weights(tmp_path / "training_only.safetensors", lambda weights: weights.pop(name))
    with pytest.raises(TeachbackError, match=name):
        load_teacher(tmp_path, record, SUITE)


def test_weights_for_a_different_number_of_domains_are_rejected(tmp_path):
    record = save(tiny_teacher(domains=(BOOKS, DVD, KITCHEN)), tmp_path)
    record["arguments"]["trained_domains"] = ["books", "dvd"]
    with pytest.raises(TeachbackError, match="domain_embedding"):
        load_teacher(tmp_path, record, SUITE)


def test_missing_model_weight_is_an_error(tmp_path):
    record = save(tiny_teacher(), tmp_path)
    edit_weights(tmp_path / "model.safetensors", lambda weights: weights.pop("classifier.bias"))
    with pytest.raises(TeachbackError, match="classifier.bias"):
        load_teacher(tmp_path, record, SUITE)


def test_missing_training_only_file_is_an_error(tmp_path):
    record = save(tiny_teacher(), tmp_path)
    (tmp_path / "training_only.safetensors").unlink()
    with pytest.raises(TeachbackError, match="training_only.safetensors"):
        load_teacher(tmp_path, record, SUITE)


# Scores


def scored_rows():
    return [
        Row("1", "a", "", "positive", "books"), Row("2", "b", "", "negative", "books"),
        Row("3", "c", "", "verse", "genre"), Row("4", "d", "", "fact", "genre"), Row("5", "e", "", "fact", "genre"),
        Row("6", "f", "", "", "books"),
    ]  # fmt: skip


def test_domain_without_train_rows_uses_the_head_of_its_label_set():
    other = Domain("genre-2", "topic", GENRE.labels, rows={"train": 0, "test": 5})
    assert head_name("mtl", other) == head_name("meta", other) == "topic"
    assert head_name("mtl", replace(other, rows={"train": 1})) == "genre-2"


KINDS_DATA = SuiteData(Suite("kinds", {d.name: d for d in FOUR_KINDS}), None, [d.name for d in FOUR_KINDS])


def test_predicted_labels_of_questions_and_regressions():
    rows = [Row("1", "a", "b ||| c", "first", "cause"), Row("2", "a", "", "1.5", "score")]
    logits = torch.tensor([[0.5, 1.5, 9.0], [0.25, ABSENT_CLASS, ABSENT_CLASS]])
    assert predicted_labels(logits, rows, KINDS_DATA) == ["second", "0.25"]


def test_regression_baseline_is_a_constant_with_correlation_zero(capsys):
    score = replace(SCORE, metric="pearson+spearman")
    data = SuiteData(Suite("kinds", {"score": score}), None, ["score"])
    train = [Row(str(i), "a", "", str(i), "score") for i in range(3)]
    found = majority_scores(data.suite, train, [Row("d", "a", "", "2.5", "score"), Row("e", "a", "", "1.5", "score")])
    assert found["score"].value == 0.0 and found["score"].metric == "pearson+spearman"
    report_scores("teacher", {"eval_score_pearson+spearman": 0.5}, found, "dev")
    assert "pearson+spearman     0.500     0.000" in capsys.readouterr().out


def test_trainer_evaluates_per_row_if_rows_have_several_sequences(tmp_path):
    texts = [("good", "bad ||| quite plot"), ("plot", ""), ("bad never", "loud ||| thin"), ("once", "twice ||| again")]
    names = ["cause", "books", "cause", "cause"]
    rows = [Row(str(i), *texts[i % 4], "", names[i % 4]) for i in range(7)]
    rows = [replace(row, label=KINDS_DATA.suite.domain(row.domain).labels[i % 2]) for i, row in enumerate(rows)]
    teacher = tiny_teacher("mtl", FOUR_KINDS, transferable=False)
    encoded, order = encode_rows(rows, KINDS_DATA, [d.name for d in FOUR_KINDS], tokenizer(), 16).sorted_by_length()
    seen = []

    def compute_metrics(prediction):
        seen.append(prediction)
        return score_by_domain([rows[i] for i in order], KINDS_DATA)(prediction)

    trainer = DistillationTrainer(
        model=TeacherTraining(teacher, TeacherArguments(teacher="mtl")),
        args=OptimizerArguments(per_device_eval_batch_size=3).training_arguments("cpu", "fp32", output_dir=str(tmp_path)),
        data_collator=Collator(0), eval_dataset=encoded, compute_metrics=compute_metrics,
    )  # fmt: skip
    metrics = trainer.evaluate()
    with torch.no_grad():
        parts = [teacher.outputs(Collator(0)([encoded[i] for i in part])).logits for part in ((0, 1, 2, 3), (4, 5, 6))]
    logits = torch.cat(parts)
    torch.testing.assert_close(torch.tensor(seen[0].predictions), logits, rtol=1e-4, atol=1e-4)
    assert logits.shape == (7, 3) and metrics["eval_loss"] == pytest.approx(
        hard_label_loss(logits, encoded.columns["label"]).mean().item(), rel=1e-4
    )
    answers = predicted_labels(logits, [rows[i] for i in order], KINDS_DATA)
    right = [answer == rows[i].label for i, answer in zip(order, answers) if rows[i].domain == "cause"]
    assert len(right) == 5 and metrics["eval_cause_accuracy"] == pytest.approx(sum(right) / 5)


DATA = SuiteData(SUITE, None, list(SUITE.domains))
LOGITS = torch.tensor(
    [[0.0, 1.0, 9.0], [0.0, 1.0, 9.0], [0.0, 1.0, 2.0], [3.0, 1.0, 2.0], [0.0, 5.0, 2.0], [0.0, 1.0, ABSENT_CLASS]]
)


def test_predicted_labels_are_label_names_of_the_rows_head():
    assert predicted_labels(LOGITS, scored_rows(), DATA) == [
        "positive",
        "positive",
        "verse",
        "fact",
        "fiction",
        "positive",
    ]


def test_selection_score_is_the_mean_over_domains():
    prediction = type("Prediction", (), {"predictions": LOGITS.numpy()})
    metrics = score_by_domain(scored_rows(), DATA)(prediction)
    assert metrics == pytest.approx({"books_accuracy": 0.5, "genre_accuracy": 2 / 3, "score": (0.5 + 2 / 3) / 2})


def test_majority_class_is_from_train_and_scored_on_dev():
    train = [Row(str(i), "a", "", label, "books") for i, label in enumerate(("positive", "positive", "negative"))]
    train += [Row("g", "a", "", "fact", "genre")]
    found = majority_scores(DATA.suite, train, scored_rows())
    assert found["books"].value == 0.5 and found["books"].n == 2  # the hidden label is not scored
    assert found["genre"].value == pytest.approx(2 / 3)


def test_warning_if_a_teacher_does_not_beat_the_majority_class(capsys, caplog):
    majority = majority_scores(DATA.suite, scored_rows()[:5], scored_rows())
    with caplog.at_level(logging.WARNING):
        report_scores("teacher", {"eval_books_accuracy": 0.9, "eval_genre_accuracy": 2 / 3}, majority, "dev")
    assert "0.900" in capsys.readouterr().out
    assert "majority class on genre (0.667, majority 0.667)" in caplog.text and "on books" not in caplog.text
