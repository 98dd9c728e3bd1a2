// A function of x and y as it is typed: read, differentiated, run, and written as Python.

const FUNCTIONS = {
  sqrt: { run: Math.sqrt, python: "np.sqrt", slope: (u) => divided(ONE, times(number(2), called("sqrt", u))) },
  exp: { run: Math.exp, python: "np.exp", slope: (u) => called("exp", u) },
  log: { run: Math.log, python: "np.log", slope: (u) => divided(ONE, u) },
  sin: { run: Math.sin, python: "np.sin", slope: (u) => called("cos", u) },
  cos: { run: Math.cos, python: "np.cos", slope: (u) => negative(called("sin", u)) },
  tanh: { run: Math.tanh, python: "np.tanh", slope: (u) => minus(ONE, power2(called("tanh", u))) },
  abs: { run: Math.abs, python: "abs", slope: (u) => called("sign", u) },
  sign: { run: Math.sign, python: "np.sign", slope: () => ZERO },
};
const CONSTANTS = { pi: Math.PI, e: Math.E };
const OPERATIONS = {
  "+": { run: (a, b) => a + b, holds: 1 }, "-": { run: (a, b) => a - b, holds: 1 },
  "*": { run: (a, b) => a * b, holds: 2 }, "/": { run: (a, b) => a / b, holds: 2 },
};

const number = (value) => ({ kind: "number", value });
const [ZERO, ONE] = [number(0), number(1)];
const is = (node, value) => node.kind === "number" && node.value === value;
const called = (name, of) => ({ kind: "call", name, of });
const joined = (op, a, b) => ({ kind: "binary", op, a, b });
const plus = (a, b) => is(a, 0) ? b : is(b, 0) ? a : joined("+", a, b);
const minus = (a, b) => is(b, 0) ? a : is(a, 0) ? negative(b) : joined("-", a, b);
const times = (a, b) => is(a, 0) || is(b, 0) ? ZERO : is(a, 1) ? b : is(b, 1) ? a : joined("*", a, b);
const divided = (a, b) => is(a, 0) ? ZERO : is(b, 1) ? a : joined("/", a, b);
const negative = (a) => a.kind === "number" ? number(-a.value) : { kind: "negative", of: a };
const power2 = (a) => joined("*", a, a);

// a to a whole power is a product, whose last bit no library decides.
function raised(a, exponent) {
  if (exponent === 0) return ONE;
  if (Number.isInteger(exponent) && exponent >= 1 && exponent <= 4) {
    return Array.from({ length: exponent - 1 }).reduce((made) => joined("*", made, a), a);
  }
  return { kind: "power", of: a, exponent };
}

// The tree of a text; raises an Error with a sentence for what is none.
function parsed(text) {
  const tokens = text.match(/\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|[A-Za-z]+|\*\*|\S/g) ?? [];
  let at = 0;
  const next = (...wanted) => wanted.includes(tokens[at]) ? tokens[at++] : null;
  const starts = (token) => token !== undefined && /^[\dA-Za-z.(]/.test(token);

  function sum() {
    let made = product();
    for (let sign; (sign = next("+", "-"));) made = (sign === "+" ? plus : minus)(made, product());
    return made;
  }
  function product() {
    let made = signed();
    for (;;) {
      const sign = next("*", "/");
      if (sign === null && !starts(tokens[at])) return made;
      made = (sign === "/" ? divided : times)(made, sign ? signed() : powered());
    }
  }
  function signed() {
    if (next("-")) return negative(signed());
    return next("+") ? signed() : powered();
  }
  function powered() {
    const base = atom();
    if (!next("^", "**")) return base;
    const exponent = signed();
    if (exponent.kind !== "number") throw new Error("An exponent must be a number, as in x^2.");
    return raised(base, exponent.value);
  }
  function atom() {
    const token = tokens[at++];
    if (token === undefined) throw new Error("Something is missing at the end.");
    if (/^[\d.]/.test(token) && Number.isFinite(Number(token))) return number(Number(token));
    if (token === "x" || token === "y") return { kind: "variable", name: token };
    if (Object.hasOwn(CONSTANTS, token)) return { kind: "constant", name: token };
    if (Object.hasOwn(FUNCTIONS, token)) {
      if (tokens[at] !== "(") throw new Error(`${token} takes parentheses: ${token}(x).`);
      return called(token, atom());
    }
    if (token === "(") {
      const within = sum();
      if (!next(")")) throw new Error("A parenthesis is not closed.");
      return within;
    }
    throw new Error(`There is no ${token} here. Known: x, y, numbers, + - * / ^ ( ), `
      + `${Object.keys(FUNCTIONS).join(", ")}, ${Object.keys(CONSTANTS).join(", ")}.`);
  }

  const made = sum();
  if (at < tokens.length) throw new Error(`${tokens[at]} does not belong there.`);
  return made;
}

function derivative(node, by) {
  switch (node.kind) {
    case "variable": return node.name === by ? ONE : ZERO;
    case "negative": return negative(derivative(node.of, by));
    case "call": return times(FUNCTIONS[node.name].slope(node.of), derivative(node.of, by));
    case "power": return times(times(number(node.exponent), raised(node.of, node.exponent - 1)), derivative(node.of, by));
    case "binary": return ofBinary(node, derivative(node.a, by), derivative(node.b, by));
    default: return ZERO;
  }
}

function ofBinary({ op, a, b }, da, db) {
  if (op === "+") return plus(da, db);
  if (op === "-") return minus(da, db);
  if (op === "*") return plus(times(da, b), times(a, db));
  return minus(divided(da, b), divided(times(a, db), times(b, b)));
}

// A function of x and y that computes it.
function runnable(node) {
  switch (node.kind) {
    case "number": return () => node.value;
    case "constant": return () => CONSTANTS[node.name];
    case "variable": return node.name === "x" ? (x) => x : (x, y) => y;
  }
  const own = node.of && runnable(node.of);
  if (node.kind === "negative") return (x, y) => -own(x, y);
  if (node.kind === "call") return ((f) => (x, y) => f(own(x, y)))(FUNCTIONS[node.name].run);
  if (node.kind === "power") return (x, y) => own(x, y) ** node.exponent;
  const [a, b, { run }] = [runnable(node.a), runnable(node.b), OPERATIONS[node.op]];
  return (x, y) => run(a(x, y), b(x, y));
}

// It as Python, in parentheses unless it holds together strongly enough.
function inPython(node, least = 0) {
  const [text, holds] = asWritten(node);
  return holds >= least ? text : `(${text})`;
}

function asWritten(node) {
  switch (node.kind) {
    case "number": return [String(node.value), node.value < 0 ? 1 : 4];
    case "constant": return [`np.${node.name}`, 4];
    case "variable": return [node.name, 4];
    case "negative": return [`-${inPython(node.of, 2)}`, 1];
    case "call": return [`${FUNCTIONS[node.name].python}(${inPython(node.of)})`, 4];
    case "power": return [`${inPython(node.of, 4)}**${inPython(number(node.exponent), 4)}`, 3];
  }
  const { holds } = OPERATIONS[node.op], space = holds === 1 ? " " : "";
  return [`${inPython(node.a, holds)}${space}${node.op}${space}${inPython(node.b, holds + 1)}`, holds];
}

// The field of a typed function; raises an Error with a sentence for what is none.
function typed(text) {
  const tree = parsed(text), slopes = [derivative(tree, "x"), derivative(tree, "y")];
  const value = runnable(tree), [gx, gy] = slopes.map(runnable);
  return {
    value,
    values: (xs, ys) => xs.map((x, k) => value(x, ys[k])),
    gradient: (x, y) => [gx(x, y), gy(x, y)],
    python: slopes.map((slope) => inPython(slope)),
  };
}
