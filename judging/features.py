"""What the fitted judge reads of a request and its response: one number a feature, from their texts and the rules' decisions."""

import re

from judging import text as measure
from judging.judgement import Judgement
from judging.view import BaseView

FLAGS = re.IGNORECASE
CANNOT = re.compile(
    r"\b(?:can't|cannot|can not|couldn't|unable|not able|no way (?:to|of)|no means|don't have|do not have|haven't|ha(?:ve|s) no|"
    r"lack|"
    r"isn't (?:something|within|in)|not (?:capable|equipped|designed|built|possible)|beyond (?:me|what|my)|no access|"
    r"only (?:see|read|get)|won't|wouldn't|nope|no can do|not in my|never (?:been|seen|gets?)|out of (?:sight|reach)|invisible|"
    r"closed to me|without (?:an?|any|legs|arms|eyes|hands))\b",
    FLAGS,
)
NEGATIONS = re.compile(
    r"n't\b|\b(?:not|no|never|nothing|none|nowhere|neither|nor|without|beyond|hardly|lack|blank|impossible|invisible|unable)\b",
    FLAGS,
)
SAYS_WHAT_IT_IS = re.compile(
    r"\b(?:as an? (?:digital |helpful |camera )?(?:ai|assistant|language model|program|chatbot)|"
    r"i'm (?:just |only )?an? (?:\w+ )?(?:ai|bot|chatbot|program|language model|assistant|software|text)|language model|"
    r"i'm (?:words|text|software)|smollm)\b",
    FLAGS,
)
SORRY = re.compile(r"\b(?:sorry|apolog|afraid|unfortunately|regret)", FLAGS)
POLITE = re.compile(
    r"\b(?:happy to help|glad to (?:help|assist)|here to (?:help|assist)|how (?:can|may) i (?:help|assist)|feel free|let me know|"
    r"thank you for|great question|assist you)\b",
    FLAGS,
)
ADVICE = re.compile(r"\b(?:you can|you could|you might|you may|try|check|here's how|here are|first|then|step)\b", FLAGS)
GENERAL = re.compile(
    r"\b(?:important|typically|generally|often|usually|various|can vary|known as|refers? to|consider|essential|in the world of|"
    r"when it comes to)\b",
    FLAGS,
)
SELF_HELP = re.compile(
    r"\b(?:up to you|you'll have to|you'd (?:want|need)|you will need|yourself|your own|instead|better off|wrong one)\b", FLAGS
)
CLAIMS = re.compile(
    r"\b(?:done|sent|now (?:playing|calling|printing)|booked|ordered|here (?:it )?is|sure|absolutely|of course|yes)\b", FLAGS
)
FIRST_PERSON = re.compile(r"\b(?:me|I|I'm|I've|I'd|my|mine|myself)\b")
BEGINS_WITH_I = re.compile(r"i(?:'m|'d|'ve| )", FLAGS)
FEW_WORDS = 8
INFORMATION = "base: information"
LEAST_LIKELY = -5.0  # nats a token: what is less likely is no more broken than this
LEAST_INFORMATION, MOST_INFORMATION = -1.0, 3.0  # nats a token


def features(prompt: str, response: str, rules: Judgement, *, cut: bool, view: BaseView | None = None) -> dict[str, float]:
    """The features by name. rules: what the rule judge says of the text alone; cut: the response stopped at its token limit.

    view: what the base makes of both; its features are there where it is.
    """
    body = measure.normalise(response)
    words, sentences = measure.words(body), measure.sentences(body)
    start = " ".join(sentences[:2])
    negations, personal = len(NEGATIONS.findall(start)), bool(FIRST_PERSON.search(start))
    found = {
        **_of_rules(rules),
        **_of_topic(prompt, body, start),
        "length": min(len(words), 120) ** 0.5,
        "short": len(words) < FEW_WORDS,
        "repeated": measure.repeated_share(words),
        "compressed": measure.compressed_share(body),
        "odd words": measure.odd_word_share(body),
        "symbols": measure.symbol_share(body),
        "other script": measure.foreign_script_share(body),
        "cannot, at its start": _count(CANNOT, start, 3),
        "cannot": _count(CANNOT, body, 4),
        "cannot, in few words": (len(words) < 40) * _count(CANNOT, start, 2),
        "negations at its start": min(negations, 3),
        "negations about itself": personal * min(negations, 2),
        "negations about itself, in few words": (len(words) < 25) * personal * min(negations, 2),
        "negation in its first sentence": bool(sentences) and bool(NEGATIONS.search(sentences[0])),
        "says what it is": bool(SAYS_WHAT_IT_IS.search(body)),
        "sorry": bool(SORRY.search(start)),
        "polite": _count(POLITE, body, 2),
        "advice": _count(ADVICE, body, 4),
        "general": _count(GENERAL, body, 4),
        "sends one away": bool(SELF_HELP.search(body)),
        "claims": bool(CLAIMS.search(start)),
        "first person": _count(FIRST_PERSON, body, 5),
        "begins with I": bool(BEGINS_WITH_I.match(body)),
        "ends in a question": body.endswith("?"),
        "asks": "?" in body,
        "digits": any(character.isdigit() for character in body),
        "cut": cut,
        **({} if view is None else _of_view(view)),
    }
    return {name: float(value) for name, value in found.items()}


def _of_rules(rules: Judgement) -> dict[str, float]:
    act, _, fault = rules.reason.partition("; ")
    return {
        "rules: complies": rules.compliance == 1,
        "rules: in part": rules.compliance == 0.5,
        "rules: declines": bool(rules.declined),
        "rules: partly broken": rules.coherence == 0.5,
        "rules: unreadable": rules.coherence == 0,
        "rules: evades": act == "evades",
        **{f"rules: {name}": fault == name for name in ("off topic", "another language", "loops")},
    }


def _of_view(view: BaseView) -> dict[str, float]:
    """The base's view of request and response, each number within what labelled responses have."""
    return {
        "base: likelihood": max(view.given, LEAST_LIKELY),
        INFORMATION: min(max(view.information, LEAST_INFORMATION), MOST_INFORMATION),
        "base: would refuse": view.refusing,
    }


def _of_topic(prompt: str, body: str, start: str) -> dict[str, float]:
    """The share of the request's longer words that come back in the response, and in its first two sentences."""
    asked = measure.stems(measure.normalise(prompt)) - measure.STOP_STEMS
    share = 1 / len(asked) if asked else 0.0
    return {"topic": len(asked & measure.stems(body)) * share, "topic at its start": len(asked & measure.stems(start)) * share}


def _count(pattern: re.Pattern[str], text: str, most: int) -> int:
    return min(len(pattern.findall(text)), most)
