import copy
import math

import numpy as np
import pytest
import torch
from tiny import (
    BOOKS,
    CAUSE,
    GENRE,
    NO_DROPOUT,
    SCORE,
    batch,
    chosen,
    classifier,
    embedding_gradients,
    padded,
    tiny_teacher,
    tokenizer,
)
from torch.nn.functional import cross_entropy

from teachback.core.arguments import MetaTeacherArguments, SecondStageArguments
from teachback.core.errors import TeachbackError
from teachback.core.training_arguments import OptimizerArguments
from teachback.data.encoding import Collator, encode
from teachback.data.schema import Row
from teachback.data.soft_labels import SoftLabels
from teachback.methods.losses import is_regression
from teachback.methods.meta_teacher import MetaTeacher, meta_heads
from teachback.methods.predictions import (
    PredictionDistillation,
    TeacherStep,
    answer_columns,
    pkd_layer_map,
    pkd_layers,
    teacher_columns,
)
from teachback.methods.teacher_outputs import features, load_features, logits_of, save_features
from teachback.models.heads import ABSENT_CLASS, Classifier, Outputs
from teachback.training.trainer import train

TEACHER_LOGITS = torch.tensor([[0.0, math.log(3)], [2.0, -1.0], [-0.5, 0.5]])


def second_stage(use_expertise_weights=False, student=None, **arguments):
    """Module of stage 5 in eval mode."""
    options = {"seed": 1, **(student or {})}
    model = classifier(**options)
    return PredictionDistillation(
        Classifier(model, {"sentiment": options.get("domain", BOOKS)}),
        SecondStageArguments(**arguments),
        use_expertise_weights,
    ).eval()


def rows(**changes):
    return batch() | {"teacher_logits": TEACHER_LOGITS} | changes


def loss(module, values):
    return module(**values)["loss"]


def student_logits(module, values):
    with torch.no_grad():
        return module.student(values).logits


def test_default_loss_is_soft_cross_entropy_without_hard_labels():
    module, values = second_stage(), rows()
    logits = student_logits(module, values)
    expected = (
        sum(-sum(p * q for p, q in zip(TEACHER_LOGITS[i].softmax(0), logits[i].log_softmax(0))) for i in range(3)) / 3
    )
    torch.testing.assert_close(loss(module, values), expected)
    assert loss(module, values | {"label": 1 - values["label"]}).item() == loss(module, values).item()


@pytest.mark.parametrize("temperature", [0.5, 2, 2.5])
def test_kl_loss_by_hand_with_temperature_and_its_square(temperature):
    module, values = second_stage(temperature=temperature, soft_loss="kl"), rows()
    student, teacher = student_logits(module, values) / temperature, TEACHER_LOGITS / temperature
    per_row = (teacher.softmax(1) * (teacher.log_softmax(1) - student.log_softmax(1))).sum(1)
    torch.testing.assert_close(loss(module, values), temperature**2 * per_row.mean())


def test_mse_loss_is_the_mean_squared_error_of_probabilities():
    module, values = second_stage(soft_loss="mse"), rows()
    expected = (student_logits(module, values).softmax(1) - TEACHER_LOGITS.softmax(1)).square().mean()
    torch.testing.assert_close(loss(module, values), expected)


def test_alpha_soft_mixes_soft_and_hard_losses():
    values = rows()
    soft, hard = (
        loss(second_stage(), values).item(),
        cross_entropy(student_logits(second_stage(), values), values["label"]).item(),
    )
    for share in (0.0, 0.25, 1.0):
        assert loss(second_stage(alpha_soft=1 - share), values).item() == pytest.approx(
            (1 - share) * soft + share * hard, rel=1e-5
        )


def test_loss_without_teacher_logits_is_cross_entropy_with_the_labels():
    module, values = second_stage(use_expertise_weights=True, temperature=3.0), batch()
    torch.testing.assert_close(loss(module, values), cross_entropy(student_logits(module, values), values["label"]))


def test_expertise_weights_apply_per_example():
    values = rows()
    weighted, plain = second_stage(True, alpha_soft=0.7), second_stage(False, alpha_soft=0.7)
    right = TEACHER_LOGITS.softmax(1)[torch.arange(3), values["label"]].tolist()
    expected = [(1 + t) / (math.exp((1 - p) ** 2) + 1) for t, p in zip(values["weight"].tolist(), right)]
    alone = [(loss(weighted, chosen(values, [i])) / loss(plain, chosen(values, [i]))).item() for i in range(3)]
    assert alone == pytest.approx(expected, rel=1e-5)
    each = [loss(weighted, chosen(values, [i])).item() for i in range(3)]
    assert loss(weighted, values).item() == pytest.approx(sum(each) / 3, rel=1e-5)


def test_zero_weight_example_gets_exactly_zero_gradient():
    module = second_stage(True, alpha_soft=0.7)
    values = rows(weight=torch.tensor([0.5, -1.0, 0.2]))
    found = embedding_gradients(module.student.model, lambda: loss(module, values))
    assert (found[1] == 0).all()
    assert found[0].abs().max() > 0 and found[2].abs().max() > 0


def test_gradient_of_the_logits_by_hand():
    module, values = second_stage(temperature=2.0), rows()
    logits = module(**values)["logits"]
    logits.retain_grad()
    module._distillation(Outputs(logits, None), values).mean().backward()
    expected = 2.0 * ((logits / 2).softmax(1) - (TEACHER_LOGITS / 2).softmax(1)) / 3
    torch.testing.assert_close(logits.grad, expected.detach())


@pytest.mark.parametrize("options", [{}, {"alpha_soft": 0.25, "temperature": 2.0, "soft_loss": "mse"}])
def test_unlabelled_rows_have_only_the_soft_loss(options):
    module, soft = second_stage(True, **options), second_stage(True, **options | {"alpha_soft": 1.0})
    values = rows(label=torch.tensor([0, -1, -1]))
    answered = values | {"label": torch.tensor([0, 0, 1])}  # the teacher's predictions for the last two rows
    for row in (1, 2):
        alone, expected = chosen(values, [row]), chosen(answered, [row])
        assert loss(module, alone).item() == loss(soft, expected).item()
        gradients = [embedding_gradients(m.student.model, lambda: loss(m, v)) for m, v in ((module, alone), (soft, expected))]
        assert torch.equal(*gradients) and gradients[0].abs().max() > 0
    each = [loss(module, chosen(values, [row])).item() for row in range(3)]
    assert loss(module, values).item() == pytest.approx(sum(each) / 3, rel=1e-5)


def test_unlabelled_regression_rows_learn_the_teachers_prediction():
    module = second_stage(student={"domain": SCORE}, alpha_soft=0.5)
    values = batch() | {"label": torch.tensor([0.5, math.nan, 2.0]), "teacher_logits": torch.tensor([[0.1], [0.7], [1.5]])}
    predicted = student_logits(module, values)[:, 0]
    expected = (predicted[1] - 0.7).square()
    torch.testing.assert_close(loss(module, chosen(values, [1])), expected)
    loss(module, values).backward()
    assert all(p.grad.isfinite().all() for p in module.parameters() if p.grad is not None)


def test_soft_labels_act_as_teacher_and_rows_without_them_use_hard_labels():
    labels = torch.tensor([0, 1, 1])
    given = SoftLabels(np.array([[0.25, 0.7505], [np.nan, np.nan], [1.0, 0.0]]))
    columns = answer_columns(given, labels)
    assert columns["answered"].tolist() == [True, False, True]
    expected = torch.tensor([[0.25, 0.7505], [0, 1.0005], [1.0005, 0]]) / 1.0005
    torch.testing.assert_close(columns["teacher_logits"].softmax(1), expected)
    assert not is_regression(columns["teacher_logits"]).any()
    module = second_stage(True, temperature=3.0, soft_loss="mse", alpha_soft=0.8)
    values = batch() | {"label": labels} | columns
    hard = cross_entropy(student_logits(module, values), labels, reduction="none")
    alone = [loss(module, chosen(values, [row])).item() for row in range(3)]
    assert alone[1] == pytest.approx(hard[1].item() * (1 + values["weight"][1].item()) / 2, rel=1e-5)  # lambda of a teacher without error
    plain = {name: value for name, value in values.items() if name != "answered"}
    for row in (0, 2):
        assert alone[row] == loss(module, chosen(plain, [row])).item() and math.isfinite(alone[row])
    assert "answered" not in answer_columns(SoftLabels(np.array([[0.5, 0.5]])), labels[:1])
    numbers = answer_columns(SoftLabels(np.array([[0.5], [np.nan]])), torch.tensor([2.0, 3.0]))
    assert numbers["teacher_logits"].tolist() == [[0.5], [3.0]]


def test_gradient_is_zero_if_student_and_teacher_agree():
    module = second_stage()
    values = rows(teacher_logits=student_logits(module, batch()))
    found = embedding_gradients(module.student.model, lambda: loss(module, values))
    assert found.abs().max() < 1e-5


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "electra"])
@pytest.mark.parametrize("width", [16, 128])
def test_padding_changes_neither_loss_nor_gradients(architecture, width):
    module, values = second_stage(True, {"architecture": architecture}, alpha_soft=0.7), rows()
    narrow = embedding_gradients(module.student.model, lambda: loss(module, values))
    wide = embedding_gradients(module.student.model, lambda: loss(module, padded(values, width)))
    torch.testing.assert_close(loss(module, padded(values, width)), loss(module, values), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(wide[:, :9], narrow, rtol=1e-3, atol=1e-5)


def test_loss_does_not_depend_on_row_order_and_batches_may_have_one_row():
    module, values = second_stage(True), rows()
    torch.testing.assert_close(loss(module, chosen(values, [2, 0, 1])), loss(module, values))
    assert module(**chosen(values, [0]))["logits"].shape == (1, 2)
    assert loss(module, chosen(values, [0])).shape == ()


@pytest.mark.parametrize("form", ["ce", "kl", "mse"])
def test_class_absent_in_the_teachers_head_is_learnt_as_probability_zero(form):
    """Loss and gradient of the logits by hand, as the logit of an absent class times its probability must give 0 and not NaN."""
    module = second_stage(student={"domain": GENRE}, alpha_soft=0.5, soft_loss=form, temperature=2.0)
    values = rows(teacher_logits=torch.cat([TEACHER_LOGITS, torch.full((3, 1), ABSENT_CLASS)], 1))
    outputs = module(**values)
    outputs["logits"].retain_grad()
    outputs["loss"].backward()
    logits = outputs["logits"].detach().requires_grad_()
    softened, known = (logits / 2).softmax(1), (TEACHER_LOGITS / 2).softmax(1)
    soft = {
        "ce": -(known * softened[:, :2].log()).sum(1),
        "kl": (known * (known / softened[:, :2]).log()).sum(1),
        "mse": ((softened[:, :2] - known).square().sum(1) + softened[:, 2].square()) / 3,
    }[form]
    expected = (0.5 * 2**2 * soft + 0.5 * cross_entropy(logits, values["label"], reduction="none")).mean()
    expected.backward()
    torch.testing.assert_close(outputs["loss"], expected)
    torch.testing.assert_close(outputs["logits"].grad, logits.grad)
    assert (logits.grad[:, 2] > 0).all()  # a step lowers the absent class
    assert all(p.grad.isfinite().all() for p in module.parameters() if p.grad is not None)


def test_one_step_changes_every_parameter():
    module = second_stage(alpha_soft=0.5).train()
    before = copy.deepcopy(module.state_dict())
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01, weight_decay=0.0)
    loss(module, rows()).backward()
    assert all(p.grad is not None for p in module.parameters())
    optimizer.step()
    # A key's bias adds a constant to all scores of a query, which softmax ignores: its gradient is only rounding error.
    changed = [name for name, value in module.named_parameters() if not torch.equal(value, before[name])]
    expected = [name for name, _ in module.named_parameters() if "key.bias" not in name]
    assert set(expected) <= set(changed) and "student.model.classifier.weight" in changed


def test_training_steps_move_the_predictions_to_the_teachers():
    module, values = second_stage(student=NO_DROPOUT).train(), rows()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        loss(module, values).backward()
        optimizer.step()
    torch.testing.assert_close(
        student_logits(module.eval(), values).softmax(1), TEACHER_LOGITS.softmax(1), atol=0.1, rtol=0
    )


def test_terms_are_logged_in_training_mode_only():
    module, values = second_stage(student=NO_DROPOUT), rows()
    loss(module, values)
    assert module.take_terms() == {}
    module.train()
    loss(module, values)
    expected = cross_entropy(student_logits(module, values), values["label"]).item()
    assert module.take_terms()["hard"] == pytest.approx(expected, rel=1e-5)


# Teacher predictions, computed once per example


def teacher_rows():
    texts = ["good plot", "bad", "thin paper never read again", "loud screen quite good"]
    encoded = encode([Row(str(i), text, "", "positive", "books") for i, text in enumerate(texts)], tokenizer(), 16)
    encoded.columns = {"domain": torch.tensor([0, 1, 0, 2])}
    return encoded


def compute_teacher_logits(teacher, batch_size, domain=0, encoded=None):
    told = features(teacher.classifier, encoded or teacher_rows(), 0, batch_size, torch.device("cpu"), "fp32")
    return logits_of(teacher, told, domain)


def test_teacher_logits_keep_the_row_order_at_any_batch_size():
    teacher = tiny_teacher()
    found = compute_teacher_logits(teacher, 4)
    assert found.shape == (4, 2) and found.dtype == torch.float32
    for batch_size in (1, 2, 3):
        torch.testing.assert_close(compute_teacher_logits(teacher, batch_size), found, atol=1e-5, rtol=1e-5)
    ids = torch.tensor([teacher_rows().inputs["input_ids"][2].tolist()])
    direct = teacher.classifier.model(input_ids=ids).logits[0]
    torch.testing.assert_close(found[2], direct, atol=1e-5, rtol=1e-5)


def test_teacher_in_train_mode_predicts_without_dropout_or_gradient():
    teacher = tiny_teacher(hidden_dropout_prob=0.5).train()
    first = compute_teacher_logits(teacher, 2)
    assert torch.equal(first, compute_teacher_logits(teacher, 2)) and not first.requires_grad and teacher.training


def test_teacher_predicts_with_the_head_of_the_domain():
    teacher = tiny_teacher(domains=(BOOKS, GENRE), transferable=False, kind="mtl")
    books, genre = compute_teacher_logits(teacher, 4, 0), compute_teacher_logits(teacher, 4, 1)
    assert (books[:, 2] == ABSENT_CLASS).all() and (genre > ABSENT_CLASS).all()
    pooled = features(teacher.classifier, teacher_rows(), 0, 4, torch.device("cpu"), "fp32").pooled[:, 0]
    head = teacher.head_for(GENRE)
    torch.testing.assert_close(genre, pooled @ head.weight.T + head.bias, atol=1e-5, rtol=1e-5)


def test_teacher_predicts_multiple_choice_questions_per_row():
    teacher = tiny_teacher(kind="mix", domains=(CAUSE,), transferable=False)
    texts = [Row(str(i), text, "good ||| bad plot", "", "cause") for i, text in enumerate(("good plot", "thin paper"))]
    encoded = encode(texts, tokenizer(), 16, {"cause": CAUSE})
    encoded.columns = {"label": torch.zeros(2, dtype=torch.long), "domain": torch.zeros(2, dtype=torch.long)}
    found = compute_teacher_logits(teacher, 2, encoded=encoded)
    batch = Collator(0)([encoded[0], encoded[1]])
    with torch.no_grad():
        torch.testing.assert_close(found, teacher.outputs(batch).logits, atol=1e-5, rtol=1e-5)
    assert found.shape == (2, 2) and not torch.equal(found[:, 0], found[:, 1])


def test_saved_features_are_loaded_exactly(tmp_path):
    told = features(tiny_teacher().classifier, teacher_rows(), 0, 4, torch.device("cpu"), "fp32", layers=(0, 2))
    save_features(tmp_path, told)
    again = load_features(tmp_path)
    assert torch.equal(again.pooled, told.pooled) and torch.equal(again.cls, told.cls)
    (tmp_path / "cls.npy").unlink()
    assert load_features(tmp_path).cls is None


# PKD and the training of the meta-teacher between epochs


def test_cls_states_beyond_half_precision_keep_their_direction():
    """States of some decoders exceed the range of half precision."""
    teacher, found = tiny_teacher(layers=4), []
    for factor in (1.0, 1e6):
        with torch.no_grad():
            teacher.classifier.model.bert.embeddings.LayerNorm.weight.mul_(factor)
            teacher.classifier.model.bert.embeddings.LayerNorm.bias.mul_(factor)
        told = features(teacher.classifier, teacher_rows(), 0, 4, torch.device("cpu"), "fp32", layers=(0,))
        found.append(told.cls.float())
    assert found[1].abs().max() > 60000
    torch.testing.assert_close(*(torch.nn.functional.normalize(states, dim=-1) for states in found), rtol=1e-2, atol=1e-3)


def test_pkd_layer_maps():
    assert pkd_layer_map("first", 6, 12) == [1, 2, 3, 4, 5]
    assert pkd_layer_map("skip", 6, 12) == [2, 4, 6, 8, 10]
    assert pkd_layer_map("last", 6, 12) == [7, 8, 9, 10, 11]
    assert pkd_layer_map("first", 3, 6) == [1, 2] and pkd_layer_map("skip", 3, 6) == [2, 4]
    assert pkd_layer_map("last", 4, 4) == [1, 2, 3]


@pytest.mark.parametrize("depths", [(1, 6), (7, 6)])
def test_pkd_rejects_layer_counts_without_pairs(depths):
    with pytest.raises(TeachbackError, match="BETA_PKD=0"):
        pkd_layer_map("first", *depths)


def pkd_module(student_layers=3, width=32, teacher_width=32, beta=10.0):
    """Module in eval mode whose loss is that of PKD alone, and a batch for it."""
    model = classifier(layers=student_layers, width=width, seed=1)
    args = SecondStageArguments(method="mpdistil", beta_pkd=beta, alpha_soft=1.0)
    torch.manual_seed(4)
    module = PredictionDistillation(Classifier(model, {"sentiment": BOOKS}), args, False, teacher_width=teacher_width).eval()
    with torch.no_grad():
        logits = module.student(batch()).logits
    states = torch.randn(3, 1, student_layers - 1, teacher_width, generator=torch.Generator().manual_seed(5))
    return module, batch() | {"teacher_logits": logits, "teacher_cls": states}


def test_pkd_loss_by_hand_on_three_layers():
    module, values = pkd_module(student_layers=4)
    with torch.no_grad():
        hidden = module.student(values, hidden_states=True).hidden_states
    total = 0.0
    for layer in (1, 2, 3):
        student, teacher = hidden[layer][:, 0], values["teacher_cls"][:, 0, layer - 1]
        student, teacher = (x / x.norm(dim=-1, keepdim=True) for x in (student, teacher))
        total = total + (student - teacher).square().mean()
    torch.testing.assert_close(loss(module, values), 10.0 * total / 3)


@pytest.mark.parametrize(("name", "pairs"), [("first", [(1, 1), (2, 2)]), ("skip", [(1, 2), (2, 4)]), ("last", [(1, 4), (2, 5)])])
def test_pkd_loss_by_hand_of_three_layers_on_a_teacher_of_six(name, pairs):
    teacher, model = tiny_teacher(layers=6), classifier(layers=3, seed=1)
    args = SecondStageArguments(method="mpdistil", beta_pkd=10.0, alpha_soft=1.0, pkd_layers=name)
    encoded, layers = teacher_rows(), pkd_layers(model, teacher, args)
    told = features(teacher.classifier, encoded, 0, 3, torch.device("cpu"), "fp32", layers)
    encoded.columns |= teacher_columns(teacher, told, BOOKS) | {"label": torch.tensor([1, 0, 0, 1])}
    module = PredictionDistillation(Classifier(model, {"sentiment": BOOKS}), args, False, teacher_width=32).eval()
    values = Collator(0)([encoded[i] for i in range(4)])
    inputs = {name: values[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    with torch.no_grad():
        of_student, of_teacher = (part(**inputs, output_hidden_states=True) for part in (model, teacher.classifier.model))
    values["teacher_logits"] = of_student.logits  # leaves the loss of PKD alone
    directions = [
        torch.nn.functional.normalize(states, dim=-1)
        for i, j in pairs for states in (of_student.hidden_states[i][:, 0], of_teacher.hidden_states[j][:, 0])
    ]  # fmt: skip
    expected = 10.0 * sum((one - other).square().mean() for one, other in zip(directions[::2], directions[1::2])) / 2
    torch.testing.assert_close(loss(module, values), expected, rtol=1e-3, atol=0)  # the teacher's states are in half precision


def test_pkd_projects_between_widths_and_trains_the_projection():
    module, values = pkd_module(width=16, teacher_width=48)
    loss(module, values).backward()
    assert module.projection.weight.shape == (48, 16) and module.projection.weight.grad.abs().sum() > 0
    layers = module.student.model.bert.encoder.layer
    assert layers[0].attention.self.query.weight.grad.abs().sum() > 0
    # Only the layers below the last are compared, and the predictions are already the teacher's.
    assert layers[2].output.dense.weight.grad.abs().max() < 1e-5


def test_pkd_ignores_padding_and_the_norm_of_states():
    module, values = pkd_module()
    torch.testing.assert_close(loss(module, padded(values, 40)), loss(module, values), rtol=1e-4, atol=1e-6)
    longer = values | {"teacher_cls": 7.0 * values["teacher_cls"]}
    torch.testing.assert_close(loss(module, longer), loss(module, values))


def teacher_step(student, loss="collaborative", epochs=3) -> TeacherStep:
    meta = MetaTeacher(meta_heads(tiny_teacher(), [BOOKS]), student.model.config.hidden_size)
    encoded = encode(
        [Row(str(i), text, "", "", "books") for i, text in enumerate(["good plot", "bad", "loud"])], tokenizer(), 16
    )
    encoded.columns = {"label": torch.tensor([1, 0, 1])}
    settings = {"pad_token_id": 0, "batch_size": 2, "device": torch.device("cpu"), "precision": "fp32"}
    pooled = torch.randn(3, 1, 32, generator=torch.Generator().manual_seed(6))
    args = MetaTeacherArguments(meta_loss=loss, meta_epochs=epochs, meta_lr=0.01)
    return TeacherStep(meta, "sentiment", pooled, encoded, args, settings, 2, 0)


def test_meta_teacher_is_trained_between_epochs_and_the_student_is_not():
    student = Classifier(classifier(seed=1), {"sentiment": BOOKS}).train()
    step = teacher_step(student)
    module = PredictionDistillation(student, SecondStageArguments(method="mpdistil", beta_pkd=0.0), False, step).train()
    values = batch() | {"teacher_pooled": step.teacher_pooled}
    before, weights = module._teacher_logits(values), copy.deepcopy(student.state_dict())
    noted = module.on_epoch_end()
    assert noted["loss_meta_teacher"] > 0 and student.training
    assert not torch.equal(module._teacher_logits(values), before)
    assert all(torch.equal(value, weights[name]) for name, value in student.state_dict().items())
    loss(module, values).backward()
    assert all(parameter.grad is None for parameter in module.meta.parameters())
    assert not any(parameter.requires_grad for parameter in module.meta.parameters())


@pytest.mark.parametrize("epochs", [1, 2])
def test_updated_meta_teacher_changes_the_student_from_the_second_epoch_on(tmp_path, epochs):
    def learnt(name: str, updated: bool) -> dict[str, torch.Tensor]:
        """Weights of a student after training with a meta-teacher, which stays as it is unless ``updated``."""
        student = Classifier(classifier(seed=1, **NO_DROPOUT), {"sentiment": BOOKS})
        step = teacher_step(student)
        if not updated:
            step.take = lambda student: [0.0]
        module = PredictionDistillation(student, SecondStageArguments(method="mpdistil", beta_pkd=0.0), False, step)
        step.encoded.columns["teacher_pooled"] = step.teacher_pooled
        settings = OptimizerArguments(
            num_train_epochs=epochs, per_device_train_batch_size=2, learning_rate=0.01, trainer=["load_best_model_at_end=false"]
        )
        args = settings.training_arguments("cpu", "fp32")
        train(module, step.encoded, step.encoded, args, tmp_path / name, None, 0, settings=settings)
        return student.state_dict()

    updated, fixed = learnt("updated", True), learnt("fixed", False)
    assert all(torch.equal(value, fixed[name]) for name, value in updated.items()) is (epochs == 1)


def test_fixed_teacher_is_not_trained_between_epochs():
    assert second_stage().on_epoch_end() == {}


def test_meta_teacher_heads_are_part_of_the_state_dict():
    student = Classifier(classifier(seed=1), {"sentiment": BOOKS})
    module = PredictionDistillation(student, SecondStageArguments(method="mpdistil", beta_pkd=0.0), False, teacher_step(student))
    assert {name for name in module.state_dict() if not name.startswith("student.")} == {
        "meta.heads.sentiment.weight", "meta.heads.sentiment.bias",
    }  # fmt: skip


def test_unset_arguments_default_to_the_values_of_each_methods_paper():
    metakd, mpdistil = SecondStageArguments(), SecondStageArguments(method="mpdistil")
    assert (metakd.soft_loss, metakd.temperature, metakd.alpha_soft, metakd.beta_pkd) == ("ce", 1.0, 1.0, 0.0)
    assert (mpdistil.soft_loss, mpdistil.temperature, mpdistil.alpha_soft, mpdistil.beta_pkd) == (
        "mse",
        5.0,
        0.5,
        100.0,
    )
    assert mpdistil.meta_teacher_every_epoch and not metakd.meta_teacher_every_epoch
    assert SecondStageArguments(method="mpdistil", temperature=2.5).temperature == 2.5


def test_features_keep_the_row_order_at_any_batch_size():
    student = Classifier(classifier(layers=3), {"sentiment": BOOKS}).train()
    encoded = teacher_rows()
    several = features(student, encoded, 0, 4, torch.device("cpu"), "fp32", layers=(1, 3))
    assert several.pooled.shape == (4, 1, 32) and several.cls.shape == (4, 1, 2, 32) and several.cls.dtype == torch.half
    for size in (1, 3):
        again = features(student, encoded, 0, size, torch.device("cpu"), "fp32", layers=(1, 3))
        torch.testing.assert_close(again.pooled, several.pooled, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(again.cls, several.cls, atol=1e-2, rtol=1e-2)
    assert student.training and not several.pooled.requires_grad
