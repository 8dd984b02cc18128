"""Laws of one's own that several tests read, and the ways they are spoilt."""

from __future__ import annotations

from hypothesis import strategies as st

CHINCHILLA = """
name = "my-chinchilla"
loss = "E + A * N**-alpha + B * D**-beta"
source = "me, here"

[parameters.E]
low = 1e-4
high = 20
start = [0.1, 5]
unit = "nats/token"
meaning = "loss of an ideal model"
[parameters.A]
low = 1e-6
high = 1e15
start = [1, 1e6]
[parameters.B]
low = 1e-6
high = 1e15
start = [1, 1e6]
[parameters.alpha]
low = 0.01
high = 3
start = [0.1, 1.2]
[parameters.beta]
low = 0.01
high = 3
start = [0.1, 1.2]
"""
KUMAR = '''
name = "my-kumar"
loss = """E + A * (N * (1 - exp(-w / gamma_w + n_w)) * (1 - exp(-a / gamma_a + n_a))
  * (1 - exp(-kv / gamma_kv + n_kv)))**-alpha + B / D**alpha"""
gap = "C_T * D**gamma_D / N**gamma_N * exp(-post / gamma_post + b)"
inputs = { w = "w_bits", a = "a_bits", kv = "kv_bits", post = "post_bits" }
conditions = [
  { expression = "1 - exp(-w / gamma_w + n_w)", sentence = "too few bits of the weights" },
  { expression = "1 - exp(-a / gamma_a + n_a)" },
  { expression = "1 - exp(-kv / gamma_kv + n_kv)" },
  { expression = "max(w, post) - 1000" },
  { expression = "max(a, post) - 1000" },
  { expression = "max(kv, post) - 1000" },
]
[parameters]
E = { low = 1e-4, high = 20, start = [0.1, 5] }
A = { low = 1e-6, high = 1e15, start = [1, 1e6] }
B = { low = 1e-6, high = 1e15, start = [1, 1e6] }
alpha = { low = 0.01, high = 3, start = [0.1, 1.2] }
gamma_w = { low = 0.05, high = 20, start = [0.3, 6], unit = "bits" }
n_w = { low = -5, high = 8, start = [-1, 2.5] }
gamma_a = { low = 0.05, high = 20, start = [0.3, 6], unit = "bits" }
n_a = { low = -5, high = 8, start = [-1, 2.5] }
gamma_kv = { low = 0.05, high = 20, start = [0.3, 6], unit = "bits" }
n_kv = { low = -5, high = 8, start = [-1, 2.5] }
C_T = { low = 1e-12, high = 1e9, start = [1e-4, 1] }
gamma_D = { low = -2, high = 4, start = [0, 1.2] }
gamma_N = { low = -2, high = 4, start = [0, 1.2] }
gamma_post = { low = 0.05, high = 10, start = [0.3, 2], unit = "bits" }
b = { low = -20, high = 20, start = [0, 0], fixed = 0 }
'''
#: What people who mean harm, or who err, write where an expression or a value is asked.
HOSTILE = (
    "__import__('os').system('touch /tmp/x')",
    "().__class__.__bases__[0].__subclasses__()",
    "E.__class__",
    "eval",
    "exec",
    "open('x', 'w')",
    "lambda: 0",
    "[x for x in ()]",
    "{**{}}",
    'f"{E}"',
    "'text'",
    "(x := 1)",
    "print(*N)",
    "exp(x=N)",
    "N[0]",
    "N < D",
    "N and D",
    "not N",
    "N if D else E",
    "N @ D",
    "N // D",
    "N % 2",
    "~N",
    "9**9**9**9",
    "(N - N + 9)**(N - N + 9)**99999",
    "exp(exp(exp(exp(9))))",
    "((9 * N)**100)**100",
    "(" * 300,
    "-" * 1500 + "N",
    "tanh(" * 30 + "N" + ")" * 30,
    "+".join(["N"] * 400),
    "1e400",
    "nan",
    "inf",
    "1j",
    "007",
    "1if N else 2",
    "True",
    "None",
    "...",
    "\x00",
    "ａ",
    "Е",  # Cyrillic
    "\N{RIGHT-TO-LEFT OVERRIDE}N",
    "\x1b[2J",
    "#",
    "\\",
    ";",
    "yield",
    "await N",
    "sqrt(-1)",
    "N / (D - D)",
    "(-1)**N",
    "0**N",
    "log(0)",
)
_TOKENS = """
exp(999999999999*log(9*N)) 0x10 1_000 E A B alpha beta N D w post exp log log2 sqrt tanh min max quantized abs
+ - * / ** // % @ ( ) ( ) , . [ ] { } : ; = == < > ! ' " # \\ ^ & | ~ 0 1 2 3.5 1e-3 1e12 1e300 .5 9 100 999999999999
if else for in lambda not and or is None True
"""
TOKENS = [*_TOKENS.split(), "\n", " "]
numbers = st.integers() | st.floats() | st.sampled_from([0, -1, 10**400, 1e308, 5e-324, True, False])
values = st.recursive(
    st.none() | numbers | st.text(max_size=20) | st.sampled_from(HOSTILE),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def expressions(draw, depth=5):
    """Text that looks like an expression, and mostly is one."""
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        return draw(
            st.sampled_from(["E", "A", "B", "alpha", "beta", "N", "D", "w", "2", "0.5", "1e9", "7", "0"])
        )
    one = draw(expressions(depth - 1))
    kind = draw(st.sampled_from(["+", "-", "*", "/", "**", "f", "g", "u", "q"]))
    if kind == "f":
        return f"{draw(st.sampled_from(['exp', 'log', 'log2', 'sqrt', 'tanh']))}({one})"
    if kind == "u":
        return f"-({one})"
    if kind == "q":
        return f"quantized(w)*({one})"
    two = draw(expressions(depth - 1))
    return f"{draw(st.sampled_from(['min', 'max']))}({one},{two})" if kind == "g" else f"({one}){kind}({two})"


soups = st.lists(st.sampled_from(TOKENS) | st.sampled_from(HOSTILE), max_size=14).map(" ".join)
texts = st.one_of(expressions(), soups, st.text(max_size=60), st.sampled_from(HOSTILE))


@st.composite
def spoilt(draw, text, hostile=HOSTILE):
    """A text with up to four edits: a stretch dropped, doubled, or replaced by something odd."""
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        end = min(len(text), at + draw(st.sampled_from([0, 0, 1, 2, 5, 20])))
        kind = draw(st.integers(0, 2))
        new = (
            ""
            if kind == 0
            else text[at:end] * 2
            if kind == 1
            else draw(st.sampled_from(hostile) | st.text(max_size=3))
        )
        text = text[:at] + new + text[end:]
    return text
