import copy
import math

import pytest
import torch
from tiny import (
    BOOKS,
    CAUSE,
    DVD,
    GENRE,
    KITCHEN,
    NO_DROPOUT,
    SCORE,
    batch,
    chosen,
    classifier,
    embedding_gradients,
    mixed_batch,
    mixed_chosen,
    padded,
    tiny_teacher,
)
from transformers import ModernBertConfig, ModernBertForSequenceClassification

from teachback.core.arguments import FirstStageArguments
from teachback.core.errors import TeachbackError
from teachback.data.schema import Row, Suite
from teachback.data.suite_data import label_ids
from teachback.methods.inner_layers import InnerLayerDistillation, layer_map, number_list
from teachback.methods.losses import known_labels
from teachback.methods.relation_loss import relation_loss
from teachback.models.heads import ABSENT_CLASS, Classifier
from teachback.models.layers import backbone, cut_layers, final_layer
from teachback.models.relation_states import RelationStates

TERMS = ("embedding", "hidden", "attention", "tkd")


def only(*names, **options):
    """Arguments with weight 1 for the named losses and 0 for the others."""
    return FirstStageArguments(**{f"{name}_weight": float(name in names) for name in TERMS}, **options)


def first_stage(arguments=None, teacher=None, use_expertise_weights=True, **student):
    """Distillation module in eval mode, by default of four teacher layers into two student layers with all four losses."""
    teacher = teacher or tiny_teacher(layers=4)
    student = Classifier(classifier(**{"seed": 1, **student}), {"sentiment": BOOKS})
    return InnerLayerDistillation(student, teacher, arguments or FirstStageArguments(), use_expertise_weights).eval()


def loss(module, rows):
    return module(**rows)["loss"]


def teacher_outputs(module, rows):
    with torch.no_grad():
        return module.teacher.teacher.outputs(rows, hidden_states=True)


def expertise(module, rows):
    """Expertise weight lambda of each row, computed from its definition."""
    values = []
    for row, logits in enumerate(teacher_outputs(module, rows).logits):
        right = logits.softmax(-1)[rows["label"][row]].item()
        values.append((1 + rows["weight"][row].item()) / (math.exp((1 - right) ** 2) + 1))
    return values


def mean_square(a, b):
    return (a - b).square().mean().item()


# The layer map


@pytest.mark.parametrize(
    ("name", "student", "teacher", "layers"),
    [
        ("uniform", 4, 12, [3, 6, 9, 12]), ("uniform", 3, 6, [2, 4, 6]), ("uniform", 4, 6, [1, 3, 4, 6]),
        ("uniform", 6, 6, [1, 2, 3, 4, 5, 6]),
        ("last", 3, 6, [4, 5, 6]), ("first", 3, 6, [1, 2, 3]), ("2,2,6", 3, 6, [2, 2, 6]), ("6", 1, 6, [6]), ("5", 3, 6, [5]),
        ("-1", 3, 6, [6]), ("-2", 3, 12, [11]), ("2,4,-1", 3, 6, [2, 4, 6]),
    ],
)  # fmt: skip
def test_layer_maps_by_name_and_list(name, student, teacher, layers):
    assert layer_map(name, student, teacher) == layers


@pytest.mark.parametrize("name", ["1,2", "1,2,3,4", "0,1,2", "1,2,7", "0", "-7", "some", "1,,3", ""])
def test_invalid_layer_maps_are_rejected(name):
    with pytest.raises(TeachbackError, match="LAYER_MAP"):
        layer_map(name, 3, 6)


@pytest.mark.parametrize("name", ["uniform", "last", "first"])
def test_student_deeper_than_its_teacher_needs_a_list_of_layers(name):
    with pytest.raises(TeachbackError, match="cannot map 6 student layers to 3 teacher layers; set a list"):
        layer_map(name, 6, 3)
    assert layer_map("1,1,2,2,3,3", 6, 3) == [1, 1, 2, 2, 3, 3]


def test_invalid_number_list_is_reported_with_the_variable_name():
    assert number_list("ANY", "3, 6") == [3, 6]
    with pytest.raises(TeachbackError, match="ANY=a,b: expected numbers"):
        number_list("ANY", "a,b")


# The loss by hand


def test_embedding_loss_by_hand():
    module, rows = first_stage(only("embedding")), batch((5, 3))
    student = module.student(rows, hidden_states=True).hidden_states[0]
    teacher = teacher_outputs(module, rows).hidden_states[0]
    per_row = [mean_square(student[0], teacher[0]), mean_square(student[1, :3], teacher[1, :3])]
    expected = sum(w * v for w, v in zip(expertise(module, rows), per_row)) / 2
    assert loss(module, rows).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "pairs"), [("uniform", [(1, 2), (2, 4)]), ("last", [(1, 3), (2, 4)]), ("3,1", [(1, 3), (2, 1)]), ("3", [(2, 3)])]
)
def test_hidden_state_loss_by_hand_sums_the_mapped_layers(name, pairs):
    module, rows = first_stage(only("hidden", layer_map=name)), batch((5, 3))
    student, teacher = module.student(rows, hidden_states=True).hidden_states, teacher_outputs(module, rows).hidden_states
    per_row = [
        sum(mean_square(student[i][row, :n], teacher[j][row, :n]) for i, j in pairs) for row, n in ((0, 5), (1, 3))
    ]
    expected = sum(w * v for w, v in zip(expertise(module, rows), per_row)) / 2
    assert loss(module, rows).item() == pytest.approx(expected, rel=1e-5)


def test_attention_loss_by_hand_on_probabilities_of_eager_attention():
    module, rows = first_stage(only("attention", attention_target="probs")), batch((5, 3))

    def probabilities(model, seed, layers):
        eager = classifier(seed=seed, layers=layers, attn_implementation="eager")
        eager.load_state_dict(model.state_dict())
        return eager(
            input_ids=rows["input_ids"], attention_mask=rows["attention_mask"], output_attentions=True
        ).attentions

    student = probabilities(module.student.model, 1, 2)
    teacher = probabilities(module.teacher.teacher.classifier.model, 7, 4)
    per_row = [
        sum(mean_square(student[i][row, :, :n, :n], teacher[j][row, :, :n, :n]) for i, j in ((0, 1), (1, 3)))
        for row, n in ((0, 5), (1, 3))
    ]
    expected = sum(w * v for w, v in zip(expertise(module, rows), per_row)) / 2
    assert loss(module, rows).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("form", ["paper", "code"])
def test_transferable_knowledge_loss_by_hand(form):
    module, rows = first_stage(only("tkd", tkd_form=form)), batch((5, 3))
    student, teacher = module.student(rows, hidden_states=True).hidden_states[-1], teacher_outputs(module, rows).hidden_states[-1]
    squash = torch.tanh if form == "paper" else lambda x: x
    per_row = []
    for row, length in ((0, 5), (1, 3)):
        known, learnt = (
            squash(part.dense(part.domain_embedding.weight[rows["domain"][row]] + states[row, :length].mean(0)))
            for part, states in ((module.teacher.teacher.transferable, teacher), (module.transferable, student))
        )
        per_row.append(mean_square(learnt, known))
    expected = sum(w * v for w, v in zip(expertise(module, rows), per_row)) / 2
    assert loss(module, rows).item() == pytest.approx(expected, rel=1e-4)


def test_total_loss_is_the_weighted_sum_of_its_terms():
    rows = batch()
    parts = {name: loss(first_stage(only(name)), rows).item() for name in TERMS}
    weights = {"embedding": 0.5, "hidden": 2.0, "attention": 0.0, "tkd": 3.0}
    module = first_stage(FirstStageArguments(**{f"{name}_weight": weight for name, weight in weights.items()}))
    assert loss(module, rows).item() == pytest.approx(sum(weights[name] * parts[name] for name in TERMS), rel=1e-5)
    assert all(value > 0 for value in parts.values())


def test_transferable_knowledge_is_initialised_as_a_copy_of_the_teachers():
    module = first_stage()
    for name, value in module.transferable.state_dict().items():
        assert torch.equal(value, module.teacher.teacher.transferable.state_dict()[name])
    assert module.transferable is not module.teacher.teacher.transferable


def test_loss_is_zero_if_the_student_equals_its_teacher():
    teacher = tiny_teacher(layers=2)
    module = first_stage(FirstStageArguments(layer_map="first"), teacher)
    module.student.model.load_state_dict(teacher.classifier.model.state_dict())
    assert loss(module, batch()).item() < 1e-10


# Weights of examples


def test_expertise_weights_apply_per_example():
    module, rows = first_stage(), batch()
    alone = [loss(module, chosen(rows, [i])).item() for i in range(3)]
    assert loss(module, rows).item() == pytest.approx(sum(alone) / 3, rel=1e-5)
    plain = first_stage(use_expertise_weights=False)
    unweighted = [loss(plain, chosen(rows, [i])).item() for i in range(3)]
    assert [a / u for a, u in zip(alone, unweighted)] == pytest.approx(expertise(module, rows), rel=1e-4)
    assert len({round(weight, 3) for weight in expertise(module, rows)}) == 3


def test_zero_weight_example_gets_exactly_zero_gradient():
    module, rows = first_stage(), batch()
    rows["weight"] = torch.tensor([0.5, -1.0, 0.2])  # lambda = (1 + t) / ... = 0
    found = embedding_gradients(module.student.model, lambda: loss(module, rows))
    assert (found[1] == 0).all()
    assert found[0].abs().max() > 0 and found[2].abs().max() > 0


def test_zero_weight_batch_gives_no_gradient_to_any_parameter():
    module, rows = first_stage(width=16), batch()
    rows["weight"] = torch.full((3,), -1.0)
    loss(module, rows).backward()
    assert all(p.grad is None or (p.grad == 0).all() for p in module.parameters())


def test_hidden_label_is_replaced_by_the_teachers_prediction():
    module, rows = first_stage(), batch()
    answered = rows | {"label": teacher_outputs(module, rows).logits.argmax(-1)}
    hidden = rows | {"label": torch.full((3,), -1)}
    assert loss(module, hidden).item() == loss(module, answered).item()
    wrong = rows | {"label": 1 - answered["label"]}
    assert loss(module, wrong).item() < loss(module, hidden).item()


def test_hidden_regression_label_is_replaced_by_the_teachers_prediction():
    teacher = tiny_teacher("single", (SCORE,), transferable=False, layers=4)
    module, rows = first_stage(FirstStageArguments(tkd_weight=0), teacher), batch()
    rows["domain"] = torch.zeros(3, dtype=torch.long)
    hidden = label_ids([Row(str(i), "a", "", "", "score") for i in range(3)], Suite("tiny", {"score": SCORE}))
    answered = teacher_outputs(module, rows).logits.squeeze(1)
    assert loss(module, rows | {"label": hidden}).item() == pytest.approx(
        loss(module, rows | {"label": answered}).item()
    )


def test_known_labels_replaces_hidden_classes_and_numbers_only():
    logits = torch.tensor([[0.1, 0.7, ABSENT_CLASS], [2.0, 1.0, 3.0], [-0.4, ABSENT_CLASS, ABSENT_CLASS]])
    hidden = known_labels(torch.tensor([-1.0, -1.0, math.nan]), logits)
    torch.testing.assert_close(hidden, torch.tensor([1.0, 2.0, -0.4]))
    known = torch.tensor([0.0, 1.0, -1.0])
    assert torch.equal(known_labels(known, logits), known)
    assert known_labels(torch.tensor([-1, 0, 1]), logits[[0, 1, 1]]).tolist() == [1, 0, 1]


def test_labels_affect_only_the_expertise_weights():
    module, rows = first_stage(use_expertise_weights=False), batch()
    assert loss(module, rows | {"label": 1 - rows["label"]}).item() == loss(module, rows).item()


# Padding, order, batch size


@pytest.mark.parametrize("width", [16, 128])
@pytest.mark.parametrize("target", ["scores", "probs"])
def test_padding_changes_neither_loss_nor_gradients(width, target):
    module, rows = first_stage(FirstStageArguments(attention_target=target)), batch()
    narrow = embedding_gradients(module.student.model, lambda: loss(module, rows))
    wide = embedding_gradients(module.student.model, lambda: loss(module, padded(rows, width)))
    torch.testing.assert_close(loss(module, padded(rows, width)), loss(module, rows), rtol=1e-4, atol=0)
    torch.testing.assert_close(wide[:, :9], narrow, rtol=1e-3, atol=1e-5)
    assert (wide[:, 9:] == 0).all()


@pytest.mark.parametrize("architecture", ["roberta", "distilbert", "electra"])
def test_padding_and_order_do_not_change_the_loss_of_other_architectures(architecture):
    teacher = tiny_teacher(architecture=architecture, layers=4)
    module, rows = first_stage(teacher=teacher, architecture=architecture), batch()
    expected = loss(module, rows)
    torch.testing.assert_close(loss(module, padded(rows, 128)), expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(loss(module, chosen(rows, [2, 0, 1])), expected, rtol=1e-5, atol=0)


def test_loss_does_not_depend_on_the_row_order():
    module, rows = first_stage(), batch()
    torch.testing.assert_close(loss(module, chosen(rows, [1, 2, 0])), loss(module, rows), rtol=1e-5, atol=0)


def test_batch_of_one_row_with_one_token_has_a_finite_loss():
    assert loss(first_stage(), batch((1,))).isfinite()


# Students of other sizes


@pytest.mark.parametrize(
    "student", [{"width": 16}, {"heads": 4}, {"width": 48, "heads": 3}, {"heads": 1, "layers": 4}, {"layers": 1}]
)
@pytest.mark.parametrize("target", ["scores", "probs"])
def test_student_may_differ_in_width_depth_and_number_of_heads(student, target):
    module = first_stage(FirstStageArguments(attention_target=target), **student)
    value = loss(module, batch())
    value.backward()
    assert value.isfinite() and value > 0
    assert all(p.grad.isfinite().all() for p in module.parameters() if p.grad is not None)


def test_different_widths_share_one_projection_that_is_saved():
    module = first_stage(width=16)
    assert module.projection.weight.shape == (32, 16) and module.projection.bias is None
    assert "projection.weight" in module.state_dict()
    assert not list(first_stage().projection.parameters())


def test_projected_hidden_states_by_hand():
    module, rows = first_stage(only("hidden"), use_expertise_weights=False, width=16), batch((4,))
    student, teacher = module.student(rows, hidden_states=True).hidden_states, teacher_outputs(module, rows).hidden_states
    expected = sum(mean_square(student[i] @ module.projection.weight.T, teacher[j]) for i, j in ((1, 2), (2, 4)))
    assert loss(module, rows).item() == pytest.approx(expected, rel=1e-5)


def test_models_without_readable_attention_can_learn_hidden_states():
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "vocab_size": 60,
        "num_labels": 2,
    }
    tokens = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    student = Classifier(ModernBertForSequenceClassification(ModernBertConfig(**sizes, **tokens)), {"sentiment": BOOKS})
    with pytest.raises(TeachbackError, match="ATTENTION_WEIGHT=0"):
        InnerLayerDistillation(student, tiny_teacher(layers=4), FirstStageArguments(), True)
    module = InnerLayerDistillation(student, tiny_teacher(layers=4), FirstStageArguments(attention_weight=0), True).eval()
    rows = batch()
    torch.testing.assert_close(loss(module, padded(rows, 16)), loss(module, rows), rtol=1e-4, atol=0)


def test_teacher_without_transferable_knowledge_needs_tkd_weight_zero():
    teacher = tiny_teacher("mix", transferable=False, layers=4)
    with pytest.raises(TeachbackError, match="mix teacher.*TKD_WEIGHT=0"):
        first_stage(teacher=teacher)
    assert loss(first_stage(FirstStageArguments(tkd_weight=0), teacher), batch()).isfinite()


def test_heads_of_different_sizes_give_finite_losses():
    teacher = tiny_teacher(domains=(BOOKS, GENRE, KITCHEN), layers=4)
    rows = batch()
    rows["label"] = torch.tensor([1, 2, 0])
    module = first_stage(teacher=teacher)
    value = loss(module, rows)
    value.backward()
    assert value.isfinite()
    assert all(p.grad.isfinite().all() for p in module.parameters() if p.grad is not None)


# Questions with choices


def mixed_module(arguments=None, **options):
    """Module with a teacher on domains of every kind and a student of the multiple-choice domain."""
    teacher = tiny_teacher(domains=(BOOKS, CAUSE, SCORE, GENRE), layers=4)
    student = Classifier(classifier(seed=1, domain=CAUSE), {"cause": CAUSE})
    return InnerLayerDistillation(student, teacher, arguments or FirstStageArguments(**options), True).eval()


@pytest.mark.parametrize("name", [*TERMS, None])
def test_mixed_batch_loss_is_the_mean_of_the_single_row_losses(name):
    module, rows = mixed_module(only(name) if name else None), mixed_batch()
    together = loss(module, rows)
    alone = [loss(module, mixed_chosen(rows, [i])) for i in range(4)]
    torch.testing.assert_close(together, sum(alone) / 4, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(loss(module, mixed_chosen(rows, [3, 2, 1, 0])), together, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(loss(module, mixed_batch(width=40)), together, rtol=1e-4, atol=1e-6)


def test_question_loss_is_averaged_over_choices_before_weighting():
    module, rows = mixed_module(only("hidden")), mixed_chosen(mixed_batch(), [1, 0])
    student, teacher = module.student(rows, hidden_states=True).hidden_states, teacher_outputs(module, rows).hidden_states
    lengths = rows["attention_mask"].sum(1).tolist()
    each = [
        sum(mean_square(student[i][s, :n], teacher[j][s, :n]) for i, j in ((1, 2), (2, 4)))
        for s, n in enumerate(lengths)
    ]
    weights = expertise(module, rows | {"label": rows["label"].long()})
    expected = (weights[0] * (each[0] + each[1]) / 2 + weights[1] * each[2]) / 2
    assert loss(module, rows).item() == pytest.approx(expected, rel=1e-5)


def test_zero_weight_question_gets_exactly_zero_gradient_in_all_choices():
    module, rows = mixed_module(), mixed_batch()
    rows["weight"] = torch.tensor([0.2, -1.0, 0.8, 1.1])
    found = embedding_gradients(module.student.model, lambda: loss(module, rows))
    assert (found[1:3] == 0).all() and found.isfinite().all()
    assert all(found[sequence].abs().max() > 0 for sequence in (0, 3, 4, 5))


# Teacher and training


def dropout_teacher():
    return tiny_teacher(layers=4, hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)


def test_teacher_outputs_are_deterministic_while_the_module_trains():
    module, rows = first_stage(teacher=dropout_teacher(), **NO_DROPOUT), batch()
    calm = loss(module, rows).item()
    module.train()
    assert module.student.training and not any(part.training for part in module.teacher.teacher.modules())
    first, second = teacher_outputs(module, rows), teacher_outputs(module, rows)
    assert torch.equal(first.logits, second.logits)
    assert all(torch.equal(a, b) for a, b in zip(first.hidden_states, second.hidden_states))
    assert loss(module, rows).item() == loss(module, rows).item() == calm


def test_teacher_in_train_mode_is_used_without_dropout():
    teacher = dropout_teacher().train()
    module, rows = first_stage(teacher=teacher, **NO_DROPOUT).train(), batch()
    assert loss(module, rows).item() == loss(module, rows).item()


def test_first_dropout_false_disables_dropout_but_trains_the_student():
    module, rows = first_stage(FirstStageArguments(first_dropout=False), hidden_dropout_prob=0.5).train(), batch()
    assert not any(part.training for part in module.student.modules())
    value = loss(module, rows)
    assert torch.equal(value, loss(module, rows)) and torch.equal(value, loss(module.eval(), rows))
    value.backward()
    assert any(weight.grad is not None and weight.grad.abs().max() > 0 for weight in module.student.parameters())


def test_student_trains_with_dropout_by_default():
    module, rows = first_stage(hidden_dropout_prob=0.5).train(), batch()
    assert loss(module, rows).item() != loss(module, rows).item()


def test_teacher_is_neither_trained_nor_saved_with_the_module():
    module = first_stage()
    teacher = module.teacher.teacher
    mine = {id(p) for p in module.parameters()}
    assert not mine & {id(p) for p in teacher.parameters()}
    assert not any(part is teacher or part is teacher.classifier.model for part in module.modules())
    assert all(name.startswith(("student.", "transferable.", "projection.")) for name in module.state_dict())
    loss(module, batch()).backward()
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())


def parameters_changed_by_a_step(module, rows):
    """Names of the parameters that one AdamW step changed."""
    before = copy.deepcopy(dict(module.named_parameters()))
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=0.01, weight_decay=0.0)
    loss(module, rows).backward()
    optimizer.step()
    return {name for name, value in module.named_parameters() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "electra"])
def test_one_step_changes_the_whole_encoder_and_neither_head_nor_teacher(architecture):
    module = first_stage(
        teacher=tiny_teacher(architecture=architecture, layers=4), architecture=architecture, width=16
    ).train()
    teacher = copy.deepcopy(module.teacher.teacher.state_dict())
    changed = parameters_changed_by_a_step(module, batch())
    encoder = {
        f"student.model.{module.student.model.base_model_prefix}.{name}"
        for name, _ in backbone(module.student.model).named_parameters()
    }
    expected = {name for name in encoder if "pooler" not in name}
    expected |= {
        "projection.weight",
        "transferable.domain_embedding.weight",
        "transferable.dense.weight",
        "transferable.dense.bias",
    }
    assert changed == expected
    assert all(torch.equal(value, teacher[name]) for name, value in module.teacher.teacher.state_dict().items())


def test_head_and_pooler_are_frozen_and_keep_the_teachers_weights_through_a_step():
    """The student is cut from its teacher; the step decays all weights that it trains."""
    teacher = tiny_teacher(layers=4)
    origin = teacher.classifier.model
    model = cut_layers(origin, [1, 3], BOOKS, teacher.head_for(BOOKS))
    module = InnerLayerDistillation(Classifier(model, {"sentiment": BOOKS}), teacher, FirstStageArguments(), True).train()
    loss(module, batch()).backward()
    torch.optim.AdamW(module.parameters(), lr=0.01, weight_decay=0.1).step()
    assert not torch.equal(model.bert.encoder.layer[1].output.dense.weight, origin.bert.encoder.layer[3].output.dense.weight)
    for own, taught in ((final_layer(model), teacher.head_for(BOOKS)), (model.bert.pooler.dense, origin.bert.pooler.dense)):
        assert torch.equal(own.weight, taught.weight) and torch.equal(own.bias, taught.bias)
        assert not own.weight.requires_grad and not own.bias.requires_grad


def test_training_steps_reduce_the_loss():
    module, rows = first_stage(**NO_DROPOUT).train(), batch((9, 4, 6, 7))
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        value = loss(module, rows)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert losses[-1] < 0.7 * losses[0]


def test_terms_are_logged_in_training_mode_only():
    module, rows = first_stage(**NO_DROPOUT), batch()
    loss(module, rows)
    assert module.term_count == 0
    module.train()
    for _ in range(2):
        loss(module, rows)
    terms = module.take_terms()
    assert set(terms) == {"embedding", "hidden", "attention", "transferable", "expertise_weight", "effective_share"}
    assert terms["expertise_weight"] == pytest.approx(sum(expertise(module, rows)) / 3, rel=1e-5)
    assert module.take_terms() == {}


def test_transferable_knowledge_loss_depends_on_the_domain_ids():
    teacher = tiny_teacher(domains=(BOOKS, DVD, KITCHEN), layers=4)
    module, rows = first_stage(only("tkd"), teacher), batch()
    assert (
        loss(module, rows | {"domain": torch.tensor([1, 1, 1])}).item()
        != loss(module, rows | {"domain": torch.tensor([2, 2, 2])}).item()
    )


@pytest.mark.parametrize(("name", "pairs"), [("uniform", [(1, 2), (2, 4)]), ("3", [(2, 3)])])
def test_relation_loss_reads_the_mapped_layers_of_student_and_teacher(name, pairs):
    module, rows = first_stage(only("attention", attention_target="relations", relation_heads=4, layer_map=name)), batch((5, 3))

    def states(model, layer: int) -> RelationStates:
        hidden = model(rows["input_ids"], rows["attention_mask"], output_hidden_states=True).hidden_states[layer - 1]
        attention = model.bert.encoder.layer[layer - 1].attention.self
        return RelationStates(attention.query(hidden), attention.key(hidden), attention.value(hidden))

    teacher = module.teacher.teacher.classifier.model
    per_row = sum(
        relation_loss(states(module.student.model, i), states(teacher, j), rows["attention_mask"], 4) for i, j in pairs
    )
    expected = (torch.tensor(expertise(module, rows)) * per_row).mean()
    assert loss(module, rows).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("target", ["scores", "relations"])
def test_attention_loss_alone_freezes_layers_after_the_last_attention(target):
    """Trainable weights that never get a gradient are an error in distributed data parallel training."""
    module, rows = first_stage(only("attention", attention_target=target)), batch((5, 3))
    loss(module, rows).backward()
    trained = {name for name, weight in module.student.model.named_parameters() if weight.requires_grad}
    assert all(weight.grad is not None for name, weight in module.student.model.named_parameters() if name in trained)
    last = {name.split("layer.1.")[1] for name in trained if "layer.1." in name}
    assert ("attention.self.value.weight" in last) == (target == "relations") and "attention.self.query.weight" in last
    assert not any(name.startswith(("intermediate", "output")) for name in last)
    assert any("layer.0.output" in name for name in trained)


def test_relation_heads_that_do_not_divide_the_widths_are_rejected():
    with pytest.raises(TeachbackError, match="RELATION_HEADS=7 does not divide"):
        first_stage(only("attention", attention_target="relations", relation_heads=7))


def test_balanced_terms_contribute_in_proportion_to_their_weights():
    """A term's gradient, relative to the term's magnitude, is proportional to its weight at any scale of the other terms."""
    module, rows = first_stage(FirstStageArguments(loss_balance="initial", hidden_weight=0.25), **NO_DROPOUT), batch((5, 3))
    balanced = loss(module.train(), rows).item()
    weights = sum(expertise(module, rows)) / 2  # if terms were equal over rows; each balanced term of the first batch has mean 1
    assert balanced == pytest.approx((1 + 0.25 + 1 + 0.5) * weights, rel=0.2)
    assert {"balance.initial", "balance.running", "balance.batches"} <= set(module.state_dict())
    assert not any(name.startswith("balance") for name in first_stage(FirstStageArguments()).state_dict())


@pytest.mark.parametrize("names", [("attention",), ("attention", "embedding"), ("hidden",), ("tkd",), TERMS], ids=" ".join)
def test_every_trainable_weight_gets_a_gradient_as_ddp_requires(names):
    module = first_stage(only(*names), width=16).train()
    loss(module, batch()).backward()
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, parameter in module.named_parameters() if parameter.grad is not None}
    assert ("projection.weight" in trained) == (names != ("attention",))


def test_initial_magnitudes_stay_fixed_after_the_first_eval_and_resuming():
    arguments, rows = FirstStageArguments(loss_balance="initial"), batch((5, 3))
    module = first_stage(arguments, **NO_DROPOUT)
    loss(module.train(), batch((9, 4, 6)))
    module.eval()  # the first evaluation fixes the initial magnitudes
    resumed = first_stage(arguments, **NO_DROPOUT)
    resumed.load_state_dict(module.state_dict())
    resumed.load_further_state(module.further_state())
    before = loss(module.eval(), rows).item()
    for one in (module, resumed):
        loss(one.train(), rows)
        assert loss(one.eval(), rows).item() == before
    assert first_stage().further_state() == {}
