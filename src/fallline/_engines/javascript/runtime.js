// What runs the programs below it: powers, sums in their fixed order, optimizers. Numbers are IEEE 754's.

// b ** e, by repeated squaring where e is whole; cut in two as in Python.
function power(b, e) {
  if (!Number.isInteger(e)) return Math.pow(b, e);
  const n = Math.abs(e);
  const made = n < 256 && e >= 0 ? whole(b, n) : whole(whole(b, 256), Math.floor(n / 256)) * whole(b, n % 256);
  return e < 0 ? 1 / made : made;
}

function whole(b, n) {
  let made = 1, square = b;
  while (n > 0) {
    if (n % 2 === 1) made *= square;
    n = Math.floor(n / 2);
    if (n > 0) square *= square;
  }
  return made;
}

// The sum of numbers: blocks of 4,096, in each 16 lanes, then halves; times a scale twice if they are single.
function total(values, scale = 1, f = double) {
  const blocks = [];
  for (let first = 0; first < values.length; first += 4096) {
    const end = Math.min(first + 4096, values.length), lanes = new Array(16).fill(0);
    for (let i = first; i < end; i++) lanes[(i - first) % 16] += values[i];
    blocks.push(halved(lanes));
  }
  const sum = halved(blocks);
  return f === double ? sum : sum * scale * scale;
}

function halved(parts) {
  while (parts.length > 1) {
    const half = Math.ceil(parts.length / 2);
    for (let i = half; i < parts.length; i++) parts[i - half] += parts[i];
    parts = parts.slice(0, half);
  }
  return parts.length ? parts[0] : 0;
}

function square(v, scale, f) {
  const scaled = f === double ? v * scale : v;
  return scaled * scaled;
}

const double = (v) => v;
const DTYPES = {
  float64: { array: Float64Array, rounded: double, tiny: 2 ** -1022, largest: Number.MAX_VALUE },
  float32: { array: Float32Array, rounded: Math.fround, tiny: 2 ** -126, largest: (2 - 2 ** -23) * 2 ** 127 },
};

// One array of parameters, stepped by a rule of `rules` or by what is given in its place. `settings` go by short name
// ("lr") or by "rule.name". Raises a RangeError for names and numbers that the rule does not take.
class Optimizer {
  constructor(name, settings = {}, dtype = "float64") {
    this.rule = typeof name === "string" ? known(rules, name, "rule") : name;
    this.dtype = known(DTYPES, dtype, "dtype");
    this.t = 0;
    this.numbers = {};
    for (const [each, { value }] of Object.entries(this.rule.hyper)) this.numbers[each] = value;
    for (const [given, value] of Object.entries(settings)) this.set(given, value);
  }

  set(given, value) {
    const named = Object.entries(this.rule.hyper).filter(([each, own]) => each === given || own.name === given);
    if (named.length === 0) known(this.rule.hyper, given, "setting");
    for (const [each, { low, high, must, single }] of named) {
      if (typeof value !== "number" || !(value >= low && value <= high)) {
        throw new RangeError(`${given} must be ${must}. Got ${value}.`);
      }
      this.numbers[each] = single ? Math.fround(value) : value;
    }
  }

  begin(x) {
    const { array } = this.dtype;
    this.arrays = { x: array.from(x), g: new array(x.length) };
    for (const [slot, start] of Object.entries(this.rule.starts)) {
      const value = typeof start === "string" ? this.numbers[start] : start;
      if (this.rule.single.includes(slot)) this.numbers[`state ${slot}`] = value;
      else this.arrays[slot] = new array(x.length).fill(value);
    }
    return this;
  }

  // One step with the gradient g; gives the parameters, which the next step writes.
  step(g) {
    const { arrays, numbers, dtype } = this, n = arrays.x.length;
    if (g.length !== n) throw new RangeError(`A gradient must have ${n} numbers. Got ${g.length}.`);
    arrays.g.set(g);
    if (!arrays.g.every(Number.isFinite)) throw new RangeError("Gradient not finite. Nothing changed.");
    for (const reading of this.rule.readings) Object.assign(numbers, this.run(reading)[1]);
    const fresh = this.run(this.rule.step)[0];
    for (const [slot, value] of Object.entries(fresh)) numbers[`state ${slot}`] = value;
    this.t += 1;
    return arrays.x;
  }

  run(program, arrays = this.arrays) {
    const { rounded, tiny, largest } = this.dtype;
    const [scalars, fresh] = program.scalars(this.t + 1, tiny, this.numbers);
    if (scalars.some((c) => Number.isFinite(c) && Math.abs(c) > largest)) {
      throw new RangeError("A setting, or a number of the state, is too large for the dtype.");
    }
    return [fresh, program.run(arrays, scalars.map((c) => rounded(Number(c))), arrays.x.length, rounded)];
  }

  // The point to report: where it is not the parameters, that of the rule.
  rest() {
    if (this.rule.rest === null) return this.arrays.x;
    const point = new this.dtype.array(this.arrays.x.length);
    this.run(this.rule.rest, { ...this.arrays, "->d": point });
    return point;
  }
}

// The points from x0 on, one for each gradient: `gradients` is a list of them, or a function of the point and of the
// number of steps done, which is called `steps` times.
function trajectory(name, settings, x0, gradients, { dtype = "float64", steps = gradients.length } = {}) {
  const optimizer = new Optimizer(name, settings, dtype).begin(x0), points = [Array.from(optimizer.arrays.x)];
  const gradient = typeof gradients === "function" ? gradients : (x, t) => gradients[t];
  for (let t = 0; t < steps; t++) points.push(Array.from(optimizer.step(gradient(points[t], t))));
  return points;
}

function known(table, name, what) {
  if (Object.hasOwn(table, name)) return table[name];
  const names = Object.values(table).map((own, k) => own.name ?? Object.keys(table)[k]);
  throw new RangeError(`There is no ${what} ${name}. Known: ${[...new Set(names)].join(", ")}.`);
}
