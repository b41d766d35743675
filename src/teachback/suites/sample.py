"""A small corpus of reviews that the project writes itself, in the raw format of the Amazon suite.

A review says what it thinks in one to three sentences and talks of something else around them. Opinions use words
common to all domains, words peculiar to one, or both; some are negated; a few labels are wrong.
``domain_general.tsv`` beside the archive says which reviews use no word of their own domain.
"""

import gzip
import io
import tarfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

from teachback.files import write_atomically
from teachback.suites import amazon
from teachback.suites.definition import Archive, Definition

REVIEWS = 320  # in each of the eight files
NEGATED = 0.2  # share of opinions said by negating their opposite
NOISE = 0.03  # share of wrong labels
KINDS = {"general": 0.35, "peculiar": 0.35, "mixed": 0.3}  # where a review's opinions come from
ARCHIVE = Archive(amazon.ARCHIVE.name)  # the same name, so that the same reader finds it
SIDE_FILE = "domain_general.tsv"

# Opinion words of all domains.
GENERAL = {
    "positive": """excellent wonderful great superb fantastic terrific outstanding marvelous splendid brilliant
        delightful impressive remarkable perfect lovely amazing awesome fabulous magnificent stellar exceptional
        admirable pleasing satisfying enjoyable charming magical incredible phenomenal glorious sublime flawless
        first-rate top-notch commendable praiseworthy rewarding refreshing thrilling heavenly dazzling exquisite
        likeable adorable peerless matchless winning laudable divine golden masterful stunning beautiful valuable
        worthwhile inspired joyful cheerful uplifting memorable""",
    "negative": """awful terrible horrible dreadful poor lousy abysmal atrocious pathetic miserable disappointing
        mediocre worthless useless annoying irritating frustrating inferior ghastly hideous appalling lame
        regrettable unpleasant disgusting dismal pitiful wretched rotten crummy shoddy horrid unbearable
        laughable insulting offensive depressing dire woeful deplorable substandard unacceptable infuriating
        painful nasty foul repulsive sorry hopeless ridiculous senseless dubious disgraceful shameful vile
        upsetting bothersome tiresome inexcusable forgettable""",
}
# Opinion words of one domain.
PECULIAR = {
    "books": {
        "positive": """lyrical gripping page-turning well-researched poetic absorbing erudite insightful unputdownable
            eloquent literate scholarly thought-provoking evocative well-plotted lucid""",
        "negative": """long-winded ghostwritten misprinted preachy unreadable rambling plagiarized stilted pedantic
            overwritten padded turgid verbose ungrammatical half-researched convoluted""",
    },
    "dvd": {
        "positive": """well-acted cinematic remastered suspenseful star-studded widescreen hilarious well-directed
            spectacular photogenic breathtaking well-scripted action-packed oscar-worthy tear-jerking crisp-looking""",
        "negative": """overacted miscast grainy straight-to-video wooden out-of-sync badly-dubbed unfunny washed-out
            scratched low-budget pixelated soapy unwatchable underlit cliched""",
    },
    "electronics": {
        "positive": """plug-and-play long-lasting ultra-fast noiseless high-resolution backlit future-proof compatible
            responsive energy-saving wireless shockproof lightweight crystal-clear upgradable glitch-free""",
        "negative": """overheating buggy short-circuited laggy staticky underpowered unresponsive incompatible
            power-hungry obsolete crackling defective glitchy unsupported bricked tinny""",
    },
    "kitchen": {
        "positive": """nonstick dishwasher-safe razor-sharp rustproof well-balanced ovenproof stain-resistant leakproof
            heat-resistant sturdy airtight easy-pouring even-heating hand-forged unbreakable mess-free""",
        "negative": """rusty leaky dented warped blunt chipped wobbly flaking greasy uneven-heating scorching
            drippy melted brittle hard-to-clean misaligned""",
    },
}
# Things that a domain's reviews are about.
TOPICS = {
    "books": "novel author chapter plot paperback biography narrator prose ending volume character preface story trilogy",
    "dvd": "movie film actor director scene soundtrack disc sequel dialogue documentary episode cast screenplay trailer",
    "electronics": "camera laptop speaker battery headset router keyboard screen charger antenna printer monitor cable remote",
    "kitchen": "skillet knife toaster blender saucepan kettle spatula oven mixer cutlery pan grinder colander teapot",
}
GENERAL_TOPICS = "purchase product thing item gift order deal package present choice offer bargain".split()
OPINIONS = (
    "the {topic} is {word}", "i found this {topic} {word}", "what a {word} {topic}", "this {topic} seems {word} to me",
    "my wife thinks the {topic} is {word}", "for the price the {topic} was {word}", "all in all a {word} {topic}",
)  # fmt: skip
NEGATIONS = (
    "the {topic} is not {word}", "i would never call this {topic} {word}", "there is nothing {word} about the {topic}",
    "the {topic} was hardly {word}", "nobody could say that this {topic} is {word}",
)  # fmt: skip
FILLERS = (
    "i ordered the {topic} in march", "my brother has had a {topic} since last year", "it arrived on a rainy tuesday",
    "we were on holiday when the {topic} came", "the box was blue", "i wrote this after two weeks",
    "a friend told me about this {topic}", "there are three others in the shop", "my neighbour asked where i got it",
    "i paid with a card", "they sell the {topic} near the station", "the label has small letters on it",
)  # fmt: skip


@dataclass(frozen=True)
class Review:
    """A written review: its text, where its opinions come from, and whether its label is wrong."""

    text: str
    kind: str
    noisy: bool


def generate(folder: Path, seed: int) -> None:
    """Write the archive and the side file into ``folder``; the same seed gives the same bytes."""
    random = Random(seed)
    reviews = {
        (domain, polarity): [_review(random, domain, polarity) for _ in range(REVIEWS)]
        for domain in amazon.FOLDERS for polarity in amazon.POLARITIES
    }  # fmt: skip
    write_atomically(folder / SIDE_FILE, _side_file(reviews))
    write_atomically(folder / ARCHIVE.name, _archive(reviews))


def _review(random: Random, domain: str, polarity: str) -> Review:
    noisy = random.random() < NOISE
    said = _opposite(polarity) if noisy else polarity
    kind = random.choices(list(KINDS), list(KINDS.values()))[0]
    sources = {"general": ["general"], "peculiar": ["peculiar"], "mixed": ["general", "peculiar"]}[kind]
    sources = sources + [random.choice(sources) for _ in range(random.choice((0, 0, 1)))]
    topics = GENERAL_TOPICS if kind == "general" else TOPICS[domain].split()
    sentences = [_opinion(random, domain, said, source, topics) for source in sources]
    sentences += [random.choice(FILLERS).format(topic=random.choice(topics)) for _ in range(random.randint(1, 4))]
    random.shuffle(sentences)
    return Review(" ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences), kind, noisy)


def _opinion(random: Random, domain: str, polarity: str, source: str, topics: list[str]) -> str:
    words = GENERAL if source == "general" else PECULIAR[domain]
    negated = random.random() < NEGATED
    word = random.choice(words[_opposite(polarity) if negated else polarity].split())
    return random.choice(NEGATIONS if negated else OPINIONS).format(topic=random.choice(topics), word=word)


def _opposite(polarity: str) -> str:
    return "negative" if polarity == "positive" else "positive"


def _side_file(reviews: dict[tuple[str, str], list[Review]]) -> str:
    lines = ["guid\tdomain_general\tkind\tlabel_noise"]
    for (domain, polarity), written in reviews.items():
        for position, review in enumerate(written):
            guid = amazon.guid(domain, polarity, position)
            lines.append(f"{guid}\t{review.kind == 'general':d}\t{review.kind}\t{review.noisy:d}")
    return "\n".join(lines) + "\n"


def _archive(reviews: dict[tuple[str, str], list[Review]]) -> bytes:
    """A tar.gz of pseudo-XML files, as the Amazon archive is. Nothing in it depends on the time of writing."""
    buffer = io.BytesIO()
    with gzip.GzipFile("", "wb", fileobj=buffer, mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        for (domain, polarity), written in reviews.items():
            data = "".join(_markup(domain, review) for review in written).encode()
            member = tarfile.TarInfo(f"sorted_data_acl/{amazon.FOLDERS[domain]}/{polarity}.review")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _markup(domain: str, review: Review) -> str:
    kind = f"<product_type>\n{domain}\n</product_type>\n"
    return f"<review>\n{kind}<review_text>\n{review.text}\n</review_text>\n</review>\n"


SUITE = Definition("sample", amazon.read, (ARCHIVE,), partial(amazon.counts, reviews=REVIEWS), generate)
