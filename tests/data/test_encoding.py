from dataclasses import replace

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from tiny import BOOKS, SUITE, text_rows, tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.utils.data import BatchSampler
from transformers import PreTrainedTokenizerFast
from transformers.trainer_pt_utils import find_batch_size

from teachback.core.errors import TeachbackError
from teachback.data.encoding import Collator, EncodedRows, LengthBucketSampler, batches, encode
from teachback.data.schema import HIDDEN, Domain, Row, Suite, join_choices, write_rows, write_suite
from teachback.data.slices import Slices
from teachback.data.suite_data import SuiteData, encode_rows, label_ids, labelled, read_unlabelled

CLS, SEP = 2, 3


def row(text_a, text_b="", label="positive", domain="books", **rest):
    return Row(text_a, text_a, text_b, label, domain, **rest)


def ids(*words):
    return tokenizer().convert_tokens_to_ids(list(words))


def lists(encoded, name="input_ids"):
    """Values of an input field, one list per sequence."""
    return [ids.tolist() for ids in encoded.inputs[name]]


def same_inputs(one, other):
    return one.inputs.keys() == other.inputs.keys() and all(lists(one, n) == lists(other, n) for n in one.inputs)


# Encoding


def test_single_texts_and_pairs_get_special_tokens_and_segment_ids():
    encoded = encode([row("good plot"), row("bad", "plot paper")], tokenizer(), 16)
    assert lists(encoded) == [
        [CLS, *ids("good", "plot"), SEP],
        [CLS, *ids("bad"), SEP, *ids("plot", "paper"), SEP],
    ]
    assert lists(encoded, "token_type_ids") == [[0] * 4, [0, 0, 0, 1, 1, 1]]
    assert "attention_mask" not in encoded.inputs
    assert encoded.lengths == [4, 6] and len(encoded) == 2


def test_encoding_of_a_row_does_not_depend_on_other_rows():
    single, pair = row("good plot"), row("bad", "plot")
    alone = [lists(encode([one], tokenizer(), 16))[0] for one in (single, pair)]
    assert lists(encode([single, pair], tokenizer(), 16)) == alone
    assert lists(encode([pair, single], tokenizer(), 16)) == alone[::-1]


def test_encoding_does_not_depend_on_the_chunk_size():
    rows = [row("good " * n, "plot" if n % 2 else "") for n in range(1, 8)]
    assert same_inputs(encode(rows, tokenizer(), 16, chunk=2), encode(rows, tokenizer(), 16))


@pytest.mark.parametrize("own", [False, True])
def test_encoding_leaves_truncation_and_padding_of_the_tokenizer_unchanged(own):
    found = tokenizer()
    if own:
        found.backend_tokenizer.enable_truncation(12, strategy="only_second", direction="left")
        found.backend_tokenizer.enable_padding(length=9, pad_token="[MASK]", pad_id=4)
    before = found.backend_tokenizer.to_str()
    assert encode([row("good bad plot"), passage("good bad plot paper")], found, 8, DOMAINS).lengths == [5, 8]
    assert found.backend_tokenizer.to_str() == before


def test_texts_are_truncated_to_the_maximum_length_with_special_tokens():
    encoded = encode([row("good bad plot paper screen quite")], tokenizer(), 5)
    assert lists(encoded) == [[CLS, *ids("good", "bad", "plot"), SEP]]
    assert lists(encoded, "token_type_ids") == [[0] * 5]


def test_the_longer_text_of_a_pair_is_truncated_first():
    encoded = encode([row("good bad plot paper screen quite", "loud thin")], tokenizer(), 8)
    assert lists(encoded) == [[CLS, *ids("good", "bad", "plot"), SEP, *ids("loud", "thin"), SEP]]
    assert lists(encoded, "token_type_ids") == [[0] * 5 + [1] * 3]


PASSAGE = Domain("passage", "yes", ("no", "yes"), kind="pair", truncate="text_a")
PLAIN = Domain("plain", "yes", ("no", "yes"), kind="pair")
CHOICES = Domain("choices", "cause", ("first", "second"), kind="choices")
THREE = Domain("three", "three", ("a", "b", "c"), kind="choices")
DOMAINS = {domain.name: domain for domain in (BOOKS, PASSAGE, PLAIN, CHOICES, THREE)}


def passage(text_a, text_b="loud thin"):
    return row(text_a, text_b, domain="passage")


def question(*choices, text="good plot", domain="choices", **rest):
    return row(text, join_choices(list(choices)), domain=domain, **rest)


def test_a_passage_is_truncated_and_its_question_is_not():
    long_question = "loud thin read watch"
    encoded = encode([passage("good bad plot", long_question), passage("good", long_question)], tokenizer(), 8, DOMAINS)
    assert lists(encoded) == [
        [CLS, *ids("good"), SEP, *ids("loud", "thin", "read", "watch"), SEP],
        [CLS, *ids("good"), SEP, *ids("loud", "thin", "read", "watch"), SEP],
    ]
    assert lists(encoded, "token_type_ids") == [[0] * 3 + [1] * 5] * 2
    plain = encode([row("good bad plot", long_question, domain="plain")], tokenizer(), 8, DOMAINS)
    assert lists(plain) == [[CLS, *ids("good", "bad"), SEP, *ids("loud", "thin", "read"), SEP]]


@pytest.mark.parametrize("text_a", ["good", "good bad plot paper screen", ""])
def test_a_question_that_leaves_no_room_for_its_passage_is_truncated_too(text_a):
    texts = (text_a, "loud thin read watch bought again")
    found = encode([passage(*texts)], tokenizer(), 8, DOMAINS)
    assert same_inputs(found, encode([row(*texts)], tokenizer(), 8)) and found.lengths == [8]


def test_truncation_strategies_mix_in_one_call_and_keep_the_row_order():
    words = "good bad plot paper screen quite never"
    rows = [row(words), passage(words), row(words, "loud thin", domain="plain"), passage("good"), passage(words, "")]
    rows += [question(words, words, text=words), passage(words, words)]
    together = encode(rows, tokenizer(), 9, DOMAINS, chunk=3)
    alone = [ids for one in rows for ids in lists(encode([one], tokenizer(), 9, DOMAINS))]
    assert lists(together) == alone
    assert together.sequences == [1, 1, 1, 1, 1, 2, 1]


# Rows of several sequences, which are questions with choices


def test_a_multiple_choice_question_has_one_sequence_per_choice():
    encoded = encode([question("bad", "quite loud"), row("thin")], tokenizer(), 16, DOMAINS)
    assert len(encoded) == 2 and encoded.sequences == [2, 1] and encoded.lengths == [7, 3]
    assert lists(encoded) == [
        [CLS, *ids("good", "plot"), SEP, *ids("bad"), SEP],
        [CLS, *ids("good", "plot"), SEP, *ids("quite", "loud"), SEP],
        [CLS, *ids("thin"), SEP],
    ]
    assert lists(encoded, "token_type_ids")[1] == [0] * 4 + [1] * 3


def test_rows_of_one_sequence_each_have_no_sequence_counts():
    encoded = encode([row("thin"), row("good", "bad", domain="plain")], tokenizer(), 16, DOMAINS)
    assert encoded.sequences == [] and "sequences" not in encoded[0]


def test_a_question_with_a_wrong_number_of_choices_is_refused():
    with pytest.raises(
        TeachbackError, match="row 'good plot' has 3 choices, but domain 'choices' has 2: first, second"
    ):
        encode([question("bad", "loud", "thin")], tokenizer(), 16, DOMAINS)


def mixed_rows():
    """Encoded questions with two and three choices, among single texts; the column ``number`` numbers the rows."""
    rows = [row("good"), question("bad", "quite loud"), row("bad plot paper screen quite never")]
    rows += [question("thin", "read watch again", "bought", domain="three"), question("once", "twice")]
    encoded = encode(rows, tokenizer(), 16, DOMAINS)
    encoded.columns = {"number": torch.arange(5), "logits": torch.arange(10.0).view(5, 2)}
    return encoded


def sequences_of(batch):
    """Token ids of a batch without padding: for each row a list of its sequences."""
    counts = batch.get("sequences", torch.ones(len(batch["index"]), dtype=torch.long)).tolist()
    found = iter(tokens[mask.bool()].tolist() for tokens, mask in zip(batch["input_ids"], batch["attention_mask"]))
    return [[next(found) for _ in range(count)] for count in counts]


def test_a_batch_has_its_sequences_in_row_order_and_its_size_in_rows():
    encoded = mixed_rows()
    batch = Collator(0, multiple=8)([encoded[i] for i in (3, 0, 1)])
    assert batch["sequences"].tolist() == [3, 1, 2] and batch["number"].tolist() == batch["index"].tolist() == [3, 0, 1]
    assert batch["input_ids"].shape == batch["attention_mask"].shape == batch["token_type_ids"].shape == (6, 8)
    inputs = lists(encoded)
    assert sequences_of(batch) == [inputs[4:7], inputs[:1], inputs[1:3]]
    assert batch["token_type_ids"][1].tolist() == [0] * 4 + [1] * 4
    assert find_batch_size(batch) == 3  # Hugging Face's Trainer reads the batch size from the first tensor


def test_a_batch_without_questions_has_no_sequence_counts():
    encoded = mixed_rows()
    batch = Collator(0)([encoded[2], encoded[0]])
    assert "sequences" not in batch and batch["input_ids"].shape == (2, 8) and batch["logits"].shape == (2, 2)


def test_batching_and_sorting_keep_the_sequences_of_a_row_together():
    encoded = mixed_rows()
    inputs = lists(encoded)
    own = [inputs[:1], inputs[1:3], inputs[3:4], inputs[4:7], inputs[7:]]
    found = {}
    for batch in batches(encoded, 2, 0):
        found |= dict(zip(batch["index"].tolist(), sequences_of(batch)))
    assert found == dict(enumerate(own))
    ordered, order = encoded.sorted_by_length()
    assert ordered.lengths == sorted(encoded.lengths, reverse=True) and order[0] in (2, 3)
    assert [sequences_of(Collator(0)([ordered[i]]))[0] for i in range(5)] == [own[i] for i in order]
    assert ordered.columns["number"].tolist() == order


@pytest.mark.parametrize("seed", range(3))
def test_questions_are_batched_by_the_length_of_their_longest_choice(seed):
    """By the sum of the choices' lengths rows 1 and 2 would share a batch, by that of the first choice rows 0 and 2."""
    rows = [
        row("quite never loud thin read watch again"),
        question("bad", "read watch again bought once", text="good"),
        question("thin bad", "read again", "bought twice", text="good", domain="three"),
        row("good bad"),
    ]
    encoded = encode(rows, tokenizer(), 16, DOMAINS)
    assert [len(ids) for ids in lists(encoded)] == [9, 5, 9, 6, 6, 6, 4]
    sampled = list(LengthBucketSampler(encoded.lengths, 2, seed))
    assert {frozenset(sampled[:2]), frozenset(sampled[2:])} == {frozenset({0, 1}), frozenset({2, 3})}


def test_encoding_no_rows_gives_an_empty_result():
    assert len(encode([], tokenizer(), 8)) == 0


def test_items_have_token_ids_columns_and_their_index():
    encoded = encode([row("good"), row("bad plot")], tokenizer(), 8)
    encoded.columns = {"weight": torch.tensor([0.5, 2.0])}
    item = encoded[1]
    assert item["index"] == 1 and item["weight"] == 2.0
    assert item["input_ids"].tolist() == [CLS, *ids("bad", "plot"), SEP]


def test_sorting_by_length_reorders_the_columns_as_well():
    encoded = encode([row("good"), row("good bad plot"), row("bad plot")], tokenizer(), 8)
    encoded.columns = {"label": torch.tensor([0, 1, 2])}
    ordered, order = encoded.sorted_by_length()
    assert order == [1, 2, 0] and ordered.lengths == [5, 4, 3]
    assert ordered.columns["label"].tolist() == order
    assert encoded.lengths == [3, 5, 4]


# Padding


def items(lengths, **columns):
    inputs = {"input_ids": [[7] * n for n in lengths], "token_type_ids": [[1] * n for n in lengths]}
    encoded = EncodedRows({name: Slices.of_lists(ids) for name, ids in inputs.items()}, columns)
    return [encoded[i] for i in range(len(lengths))]


def test_a_batch_is_padded_to_its_longest_row():
    batch = Collator(pad_token_id=9)(items([2, 4, 1]))
    assert batch["input_ids"].tolist() == [[7, 7, 9, 9], [7, 7, 7, 7], [7, 9, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]
    assert batch["token_type_ids"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]
    assert all(batch[name].dtype == torch.long for name in batch)


@pytest.mark.parametrize(("longest", "width"), [(1, 8), (8, 8), (9, 16)])
def test_batches_are_padded_to_the_next_multiple(longest, width):
    batch = Collator(0, multiple=8)(items([1, longest]))
    assert batch["input_ids"].shape == (2, width)
    assert batch["attention_mask"].sum(1).tolist() == [1, longest]


def test_real_tokens_with_the_padding_id_are_not_masked():
    batch = Collator(pad_token_id=7)(items([2, 3]))
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]


def test_columns_are_stacked_in_the_order_of_the_batch():
    rows = items(
        [2, 3, 1], label=torch.tensor([0, 1, 0]), teacher_logits=torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    )
    batch = Collator(0)([rows[2], rows[0]])
    assert batch["index"].tolist() == [2, 0] and batch["label"].tolist() == [0, 0]
    assert batch["teacher_logits"].tolist() == [[4.0, 5.0], [0.0, 1.0]]


def test_batches_hold_every_row_once_longest_first():
    encoded = encode([row("good " * n) for n in (3, 1, 5, 2, 4)], tokenizer(), 16)
    found = list(batches(encoded, 2, pad_token_id=0))
    assert [batch["index"].tolist() for batch in found] == [[2, 4], [0, 3], [1]]
    assert [batch["input_ids"].shape[1] for batch in found] == [7, 5, 3]
    for batch in found:
        for index, tokens, mask in zip(batch["index"], batch["input_ids"], batch["attention_mask"]):
            assert tokens[mask.bool()].tolist() == lists(encoded)[index]


# Order of the train rows

LENGTHS = [3 + (i * 37) % 101 for i in range(203)]


def order(epoch=0, seed=5, batch_size=8, **options):
    sampler = LengthBucketSampler(LENGTHS, batch_size, seed, **options)
    sampler.set_epoch(epoch)
    return list(sampler)


def in_batches(rows, size=8):
    return [rows[i : i + size] for i in range(0, len(rows), size)]


@pytest.mark.parametrize("batch_size", [1, 8, 203, 500])
def test_every_row_is_sampled_once_per_epoch(batch_size):
    assert sorted(order(batch_size=batch_size)) == list(range(203))
    assert len(LengthBucketSampler(LENGTHS, batch_size, 0)) == 203


def test_the_order_is_fixed_by_seed_and_epoch():
    assert order(epoch=2) == order(epoch=2)
    orders = [order(epoch=epoch, seed=seed) for epoch in range(3) for seed in range(3)]
    assert len({tuple(one) for one in orders}) == 9


def test_sampling_does_not_change_the_global_random_state():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    order()
    assert torch.equal(torch.get_rng_state(), state)


def test_batches_hold_rows_of_similar_length_and_come_in_random_order():
    def spread(rows):
        whole = [[LENGTHS[row] for row in batch] for batch in in_batches(rows)[:-1]]
        return sum(max(lengths) - min(lengths) for lengths in whole) / len(whole)

    rows = order()
    assert spread(rows) < 6 < 60 < spread(list(range(203)))
    means = [sum(LENGTHS[row] for row in batch) / 8 for batch in in_batches(rows)[:-1]]
    assert means != sorted(means) and means != sorted(means, reverse=True)


def test_batches_combine_other_rows_in_each_epoch():
    pooled = {frozenset(batch) for batch in in_batches(order(epoch=0, pool=2))}
    assert len(pooled & {frozenset(batch) for batch in in_batches(order(epoch=1, pool=2))}) < 3


def test_the_incomplete_batch_comes_last_and_is_a_random_sample():
    last = [in_batches(order(epoch=epoch))[-1] for epoch in range(30)]
    assert all(len(batch) == 203 % 8 for batch in last)
    assert all(len(batch) == 8 for batch in in_batches(order())[:-1])
    mean = sum(LENGTHS[row] for batch in last for row in batch) / 90
    assert 40 < mean < 66  # the mean length of all rows is 53


@pytest.mark.parametrize("processes", [2, 4])
def test_global_batches_do_not_depend_on_the_number_of_processes(processes):
    alone = in_batches(order(batch_size=8))
    rows = BatchSampler(LengthBucketSampler(LENGTHS, 8, 5), 8 // processes, drop_last=False)
    shards = [list(BatchSamplerShard(rows, processes, rank)) for rank in range(processes)]
    together = [[row for part in parts for row in part] for parts in zip(*shards, strict=True)]
    assert together[:-1] == alone[:-1] and set(together[-1]) >= set(alone[-1])


# Rows of a suite

SCORE = Domain("score", "score", (), task="regression")


def suite_data(folder, domains=""):
    for split in ("train", "dev", "test"):
        write_rows(
            folder / "tiny" / f"{split}.tsv",
            [row(f"{split} {name}", label=SUITE.domain(name).labels[0], domain=name) for name in SUITE.domains],
        )
    write_suite(folder / "tiny", SUITE)
    return SuiteData.read(str(folder), "tiny", domains)


def test_label_ids_follow_the_label_order_of_each_domain():
    rows = [
        row("a", label="positive"),
        row("b", label="negative"),
        row("c", label=""),
        row("d", label="verse", domain="genre"),
    ]
    found = label_ids(rows, SUITE)
    assert found.tolist() == [1, 0, -1, 2] and found.dtype == torch.long


def test_labels_of_a_regression_are_floats():
    found = label_ids(
        [row("a", label="2.5", domain="score"), row("b", label="-3", domain="score")], Suite("r", {"score": SCORE})
    )
    assert found.tolist() == [2.5, -3.0] and found.dtype == torch.float


def test_hidden_labels_are_nan_for_regressions_and_minus_one_for_classes():
    rows = [row("a", label="", domain="score"), row("b", label=""), row("c", label="-1", domain="score"), row("d")]
    found = label_ids(rows, Suite("r", {"score": SCORE, "books": BOOKS}))
    assert found[0].isnan() and found[1:].tolist() == [-1.0, -1.0, 1.0]


def test_labelled_drops_rows_with_hidden_labels():
    assert [r.guid for r in labelled([row("a"), row("b", label=""), row("c")])] == ["a", "c"]


def test_the_domain_column_indexes_the_domains_of_the_teacher(tmp_path):
    rows = [row("good", domain="kitchen", weight=0.25), row("bad", label="negative", domain="dvd", weight=0.5)]
    encoded = encode_rows(rows, suite_data(tmp_path), ["dvd", "books", "kitchen"], tokenizer(), 8)
    assert encoded.columns["domain"].tolist() == [2, 0]
    assert encoded.columns["label"].tolist() == [1, 0]
    assert encoded.columns["weight"].tolist() == [0.25, 0.5]


def test_rows_of_a_domain_unknown_to_the_teacher_are_refused(tmp_path):
    with pytest.raises(TeachbackError, match="trained on books, dvd, not on kitchen"):
        encode_rows([row("good", domain="kitchen")], suite_data(tmp_path), ["books", "dvd"], tokenizer(), 8)


def test_encoding_an_empty_selection_of_rows_is_refused(tmp_path):
    with pytest.raises(TeachbackError, match="no rows.*DOMAIN"):
        encode_rows([], suite_data(tmp_path), ["books"], tokenizer(), 8)


def test_selected_domains_keep_the_order_of_the_suite(tmp_path):
    data = suite_data(tmp_path, "kitchen, books")
    assert data.selected == ["books", "kitchen"]
    assert [r.domain for r in data.rows("dev")] == ["books", "kitchen"]
    assert [r.text_a for r in data.rows("test", ["dvd"])] == ["test dvd"]
    assert data.target("").name == "books" and [d.name for d in data.targets("all")] == ["books", "kitchen"]


def test_domains_without_train_rows_are_never_target_domains(tmp_path):
    counts = {"books": 3, "dvd": 0, "kitchen": 1}
    domains = {name: replace(SUITE.domain(name), rows={"train": n, "test": 2}) for name, n in counts.items()}
    data = SuiteData(Suite("tiny", domains), tmp_path, ["dvd", "books", "kitchen"])
    assert data.trainable == ["books", "kitchen"] and data.target("").name == "books"
    assert [domain.name for domain in data.targets("all")] == ["books", "kitchen"]
    with pytest.raises(TeachbackError, match="DOMAIN=dvd has no train rows.*books, kitchen"):
        data.target("dvd")
    with pytest.raises(TeachbackError, match="dvd.*no train rows"):
        SuiteData(Suite("tiny", domains), tmp_path, ["dvd"]).targets("all")


def test_hidden_rows_are_read_from_their_optional_file(tmp_path):
    data = suite_data(tmp_path, "books")
    assert data.rows(HIDDEN) == []
    hidden = [row("good", label="", domain=domain) for domain in ("dvd", "books")]
    write_rows(tmp_path / "tiny" / "hidden.tsv", hidden)
    assert data.rows(HIDDEN) == hidden[1:]
    (tmp_path / "tiny" / "dev.tsv").unlink()
    with pytest.raises(TeachbackError, match="dev.tsv does not exist"):
        data.rows("dev")


def test_encode_rows_encodes_and_truncates_each_row_by_its_domain(tmp_path):
    suite, long = Suite("tiny", DOMAINS), "loud thin read watch"
    rows = [question("bad", long, text="good plot paper", label="second")]
    rows += [row("good bad plot", long, label="", domain=domain) for domain in ("passage", "plain")]
    data = SuiteData(suite, tmp_path, list(DOMAINS))
    encoded = encode_rows(rows, data, ["passage", "plain", "choices"], tokenizer(), 8)
    assert encoded.sequences == [2, 1, 1] and encoded.columns["label"].tolist() == [1, -1, -1]
    assert lists(encoded) == [
        [CLS, *ids("good", "plot", "paper"), SEP, *ids("bad"), SEP],
        [CLS, *ids("good", "plot"), SEP, *ids("loud", "thin", "read"), SEP],
        [CLS, *ids("good"), SEP, *ids("loud", "thin", "read", "watch"), SEP],
        [CLS, *ids("good", "bad"), SEP, *ids("loud", "thin", "read"), SEP],
    ]


def test_an_unknown_or_unselected_domain_is_refused(tmp_path):
    with pytest.raises(TeachbackError, match="no domain 'book'"):
        suite_data(tmp_path, "book")
    with pytest.raises(TeachbackError, match="DOMAIN=dvd is not among.*books, kitchen"):
        suite_data(tmp_path, "books kitchen").target("dvd")


def test_unlabelled_texts_become_rows_of_the_target_domain_with_weight_one(tmp_path):
    path = tmp_path / "texts"
    path.write_text("good plot\nbad paper\n", encoding="utf-8")
    assert read_unlabelled(str(path), BOOKS) == [
        Row("unlabelled-1", "good plot", "", "", "books", 1.0),
        Row("unlabelled-2", "bad paper", "", "", "books", 1.0),
    ]
    assert read_unlabelled("", BOOKS) == []


def test_only_line_feeds_end_an_unlabelled_text(tmp_path):
    path = tmp_path / "texts"
    path.write_bytes("good\u2028plot\x85\r\nbad\x0bpaper".encode())
    assert [r.text_a for r in read_unlabelled(str(path), BOOKS)] == ["good\u2028plot\x85", "bad\x0bpaper"]


def test_unlabelled_pairs_are_separated_by_a_tab(tmp_path):
    path = tmp_path / "texts"
    path.write_text("good\tplot\n", encoding="utf-8")
    pairs = Domain("nli", "nli", ("a", "b"), kind="pair")
    assert read_unlabelled(str(path), pairs)[0].text_b == "plot"
    with pytest.raises(TeachbackError, match="line 1: expected one text, no tab"):
        read_unlabelled(str(path), BOOKS)
    path.write_text("good\tplot\nbad\n", encoding="utf-8")
    for domain in (pairs, CHOICES):
        with pytest.raises(TeachbackError, match="line 2: expected two texts and one tab"):
            read_unlabelled(str(path), domain)
    with pytest.raises(TeachbackError, match="UNLABELLED=.*no such file"):
        read_unlabelled(str(tmp_path / "missing"), BOOKS)


def test_unlabelled_texts_are_read_from_csv_and_json_lines(tmp_path):
    pair = replace(BOOKS, kind="pair")
    csv, lines = tmp_path / "more.csv", tmp_path / "more.jsonl"
    csv.write_text('id,text\n1,"good, plot"\n2,"two\nlines"\n')
    lines.write_text('{"text_a": "good", "text_b": "plot", "score": [1]}\n{"text_a": "bad", "text_b": "paper"}\n')
    assert [row.text_a for row in read_unlabelled(str(csv), BOOKS)] == ["good, plot", "two lines"]
    assert [(row.text_a, row.text_b) for row in read_unlabelled(str(lines), pair)] == [("good", "plot"), ("bad", "paper")]
    with pytest.raises(TeachbackError, match="UNLABELLED=.*more.csv: there is no column text_b; available: id, text"):
        read_unlabelled(str(csv), pair)
    lines.write_text('{"text_a": "good"}\n{"text_b": "bad"}\n')
    with pytest.raises(TeachbackError, match="more.jsonl line 2: expected text_a; found an empty text"):
        read_unlabelled(str(lines), BOOKS)



def test_a_text_without_any_tokens_gets_one_token():
    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "[END]": 1, "good": 2}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    decoder = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="[END]", pad_token="[END]", unk_token="[UNK]")
    texts = [replace(text_rows(1)[0], text_a=text) for text in ("good", " ")]
    assert [ids.tolist() for ids in encode(texts, decoder, 8).inputs["input_ids"]] == [[2], [1]]
