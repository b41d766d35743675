"""Synthetic corpus of reviews in the raw format of the Amazon suite.

A review has two sentences of opinion among neutral ones. Opinions use words common to all domains, words specific to one
domain, or both; some are negated; a few labels are wrong. ``domain_general.tsv`` beside the archive lists the reviews
without domain-specific words.
"""

import gzip
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path
from random import Random

from teachback.core.files import write_atomically
from teachback.core.tsv import as_tsv
from teachback.data.suites import amazon
from teachback.data.suites.definition import Archive, Definition

REVIEWS = 320  # per file, of eight
NEGATED = 0.2  # share of opinions expressed by negating the opposite
NOISE = 0.03  # share of wrong labels
UNNAMED = 0.3  # share of sentences that say "it" for their topic, in reviews with topics
KINDS = {"general": 0.5, "peculiar": 0.25, "mixed": 0.25}  # vocabulary of a review's opinions -> share of reviews
ARCHIVE = Archive(amazon.ARCHIVE.name)  # same name, so that the same reader works
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
# Topics of a domain's reviews; reviews without domain-specific words just say "it".
TOPICS = {
    "books": """novel author chapter plot paperback biography narrator prose preface trilogy hardcover heroine poem
        essay memoir publisher bookmark glossary thriller folklore appendix footnote dictionary translator""",
    "dvd": """movie film actor director scene soundtrack disc sequel documentary episode cast screenplay trailer
        cartoon western subtitle actress camerawork musical costume menu remake animation blockbuster""",
    "electronics": """camera laptop speaker battery headset router keyboard screen charger antenna printer monitor
        cable remote modem scanner processor adapter tablet firmware lens microphone stereo pixel""",
    "kitchen": """skillet knife toaster blender saucepan kettle spatula oven mixer cutlery pan grinder colander
        teapot whisk ladle fryer dishwasher grater lid juicer apron cookie waffle""",
}
OPINIONS = (
    "{topic} is {word}", "i found {topic} {word}", "{topic} seems {word} to me", "we think {topic} is {word}",
    "{topic} was {word} from the first day", "i call {topic} {word}",
)  # fmt: skip
NEGATIONS = (
    "{topic} is not {word}", "i would never call {topic} {word}", "there is nothing {word} about {topic}",
    "{topic} was hardly {word}", "nobody thinks {topic} is {word}",
)  # fmt: skip
FILLERS = (
    "i got {topic} in march", "my brother has had {topic} since last year", "{topic} came on a rainy day",
    "a friend told me about {topic}", "we had {topic} with us for a week", "they sell {topic} near the station",
    "i paid for {topic} with a card", "my neighbour asked me about {topic}", "{topic} was in a box on the table",
)  # fmt: skip


@dataclass(frozen=True)
class Review:
    """A generated review: its text, the vocabulary of its opinions, and whether its label is wrong."""

    text: str
    kind: str
    noisy: bool


def generate(folder: Path, seed: int) -> None:
    """Write the archive and ``domain_general.tsv`` into ``folder``; deterministic to the byte in ``seed``."""
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
    sources = {"general": ["general"] * 2, "peculiar": ["peculiar"] * 2, "mixed": ["general", "peculiar"]}[kind]
    topics = _topics(random, domain) if kind != "general" else repeat("it")
    sentences = [_opinion(random, domain, said, source, topics) for source in sources]
    sentences += [filler.replace("{topic}", next(topics)) for filler in random.sample(FILLERS, random.randint(1, 3))]
    random.shuffle(sentences)
    return Review(" ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences), kind, noisy)


def _topics(random: Random, domain: str) -> Iterator[str]:
    """Yield the topics of a review's sentences: things of its domain, or "it"."""
    things = TOPICS[domain].split()
    while True:
        yield "it" if random.random() < UNNAMED else random.choice(things)


def _opinion(random: Random, domain: str, polarity: str, source: str, topics: Iterator[str]) -> str:
    words = GENERAL if source == "general" else PECULIAR[domain]
    negated = random.random() < NEGATED
    word = random.choice(words[_opposite(polarity) if negated else polarity].split())
    sentence = random.choice(NEGATIONS if negated else OPINIONS)
    return sentence.replace("{topic}", next(topics)).replace("{word}", word)


def _opposite(polarity: str) -> str:
    return "negative" if polarity == "positive" else "positive"


def _side_file(reviews: dict[tuple[str, str], list[Review]]) -> str:
    lines = [
        (amazon.guid(domain, polarity, position), int(review.kind == "general"), review.kind, int(review.noisy))
        for (domain, polarity), written in reviews.items()
        for position, review in enumerate(written)
    ]
    return as_tsv(("guid", "domain_general", "kind", "label_noise"), lines)


def _archive(reviews: dict[tuple[str, str], list[Review]]) -> bytes:
    """Build a tar.gz of pseudo-XML files like the Amazon archive, independent of the time of writing."""
    buffer = io.BytesIO()
    with gzip.GzipFile("", "wb", fileobj=buffer, mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        for (domain, polarity), written in reviews.items():
            kind = f"<product_type>\n{domain}\n</product_type>\n"
            data = "".join(
                f"<review>\n{kind}<review_text>\n{review.text}\n</review_text>\n</review>\n" for review in written
            ).encode()
            member = tarfile.TarInfo(f"sorted_data_acl/{amazon.FOLDERS[domain]}/{polarity}.review")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


SUITE = Definition("sample", amazon.read, (ARCHIVE,), partial(amazon.counts, reviews=REVIEWS), generate)
