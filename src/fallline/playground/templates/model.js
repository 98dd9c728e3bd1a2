// What is shown, as the address says it, and the tracks that follow from it.

const OWN = "own";  // the surface that is typed
const ZOOM = 1.25;

const state = {
  surface: "rosenbrock", formula: "x^2/20 + y^2 + sin(3x)/4", zoom: 0, start: null, steps: 200, scale: 0, noise: 0, seed: 0,
  coordinate: 0, numbers: false, looked: 0, at: 0, chosen: [],
};

const surfaceData = () => DATA.surfaces[state.surface] ?? { window: [[-3, 3], [-3, 3]], start: [-2, 2], minima: [], target: null };
const label = (name) => name.replace("dialects.", "");

// The part of the plane that is drawn.
function shownWindow() {
  return surfaceData().window.map(([low, high]) => {
    const middle = (low + high) / 2, half = (high - low) / 2 * ZOOM ** state.zoom;
    return [middle - half, middle + half];
  });
}

function theField() {
  return state.surface === OWN ? typed(state.formula) : traced(DATA.surfaces[state.surface].program);
}

// ---- addresses ------------------------------------------------------------------------------------------------------

const NUMBERS = { zoom: [-20, 20], steps: [1, 1000], scale: [-12, 12], noise: [0, 1e12], seed: [0, DATA.noise.seeds - 1], coordinate: [0, 1] };
const WHOLE = ["zoom", "steps", "scale", "seed", "coordinate"];

function address() {
  const said = new URLSearchParams({ surface: state.surface });
  if (state.surface === OWN) said.set("f", state.formula);
  said.set("start", state.start.join(","));
  for (const name of Object.keys(NUMBERS)) if (state[name] !== DEFAULTS[name]) said.set(name, state[name]);
  if (state.numbers) said.set("numbers", 1);
  if (state.looked) said.set("looked", state.looked);
  for (const { name, settings } of state.chosen) {
    said.append("o", [name, ...Object.entries(settings).map(([key, value]) => `${key}:${value}`)].join(","));
  }
  return said.toString().replaceAll("%2C", ",").replaceAll("%3A", ":");
}

// Take what an address says; what it says wrongly, or not at all, is as at the beginning.
function take(hash) {
  const said = new URLSearchParams(hash);
  if (said.get("surface") === OWN || Object.hasOwn(DATA.surfaces, said.get("surface"))) state.surface = said.get("surface");
  if (said.has("f")) state.formula = said.get("f");
  for (const [name, [low, high]] of Object.entries(NUMBERS)) {
    const value = said.has(name) ? Number(said.get(name)) : NaN;
    state[name] = value >= low && value <= high && !(WHOLE.includes(name) && value % 1) ? value : DEFAULTS[name];
  }
  const start = (said.get("start") ?? "").split(",").map(Number);
  state.start = said.has("start") && start.length === 2 && start.every(Number.isFinite) ? start : surfaceData().start;
  state.numbers = said.has("numbers");
  state.chosen = said.getAll("o").map((text) => text.split(",")).filter(([name]) => Object.hasOwn(rules, name))
    .map(([name, ...settings]) => ({ name, settings: Object.fromEntries(settings.map((each) => each.split(":"))
      .map(([key, value]) => [key, Number(value)]).filter(([key, value]) => allowed(name, key, value))) }));
  state.looked = Math.min(Number(said.get("looked")) || 0, Math.max(state.chosen.length - 1, 0));
}

// ---- settings -------------------------------------------------------------------------------------------------------

// The settings of an optimizer that can be written in Python, each once, by name: [name, {value, low, high, must}].
const settingsOf = (name) => Object.entries(Object.fromEntries(Object.values(rules[name].hyper)
  .filter((own) => DATA.optimizers[name].python.includes(`{${own.name}}`)).map((own) => [own.name, own])));

function allowed(name, key, value) {
  const own = settingsOf(name).find(([each]) => each === key)?.[1];
  return own !== undefined && value >= own.low && value <= own.high;
}

// The numbers that a slider offers for a setting: within its range, and as people choose them.
function offered({ low, high, value }) {
  const fine = [1, 1.25, 1.6, 2, 2.5, 3, 4, 5, 6, 8];
  const positive = Array.from({ length: 20 }, (_, k) => k - 16).flatMap((e) => fine.map((m) => Number(`${m}e${e}`)));
  const fractions = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99,
    0.992, 0.995, 0.998, 0.999, 0.9995, 0.9999, 0.99999];
  const every = high < 1 ? fractions : low === 1 ? Array.from({ length: 50 }, (_, k) => k + 1)
    : [...positive.map((v) => -v).reverse(), 0, ...positive.filter((v) => v >= (value > 1e-4 ? 1e-6 : 0))];
  return [...new Set([...every.filter((v) => v >= low && v <= high), value])].sort((a, b) => a - b);
}

// ---- tracks ---------------------------------------------------------------------------------------------------------

// One optimizer from the start: at each step the point, the value there and, for both coordinates, gradient, state and
// increment. `end` says why it ended early.
function track(field, name, settings, wanted = state.steps) {
  const optimizer = new Optimizer(name, settings).begin(state.start), scale = Number(`1e${state.scale}`);
  const slots = Object.keys(rules[name].starts).filter((slot) => !rules[name].single.includes(slot));
  const made = { xs: [], ys: [], heights: [], at: [], end: "" };
  const note = (g, before) => {
    const [x, y] = optimizer.rest(), now = optimizer.arrays.x;
    made.xs.push(x);
    made.ys.push(y);
    made.heights.push(field.value(x, y) * scale);
    made.at.push({
      g, d: now.map((v, k) => v - before[k]), x: Array.from(before), numbers: { ...optimizer.numbers },
      ...Object.fromEntries(slots.map((slot) => [`.${slot}`, Array.from(optimizer.arrays[slot])])),
    });
  };
  note([NaN, NaN], optimizer.arrays.x);
  for (let t = 0; t < wanted; t++) {
    const before = Array.from(optimizer.arrays.x);
    const g = field.gradient(...before).map((v, k) => scale * v + state.noise * drawn(t, k));
    try {
      optimizer.step(g);
    } catch (error) {
      made.end = error.message.replace(" Nothing changed.", "");
      break;
    }
    note(g, before);
  }
  return made;
}

// The noise at a step: a normal number with three decimals, which Python draws and this page has been given.
const drawn = (t, k) => NOISE[(state.seed * 1000 + t) * 2 + k] / 1000;
const NOISE = new Int16Array(Uint8Array.from(atob(DATA.noise.table), (c) => c.charCodeAt(0)).buffer);

// The rate, of a grid of half decades, whose track lies lowest on average, by the logarithm of the height.
function bestRate(field, { name, settings }) {
  const { tuned, squared } = DATA.optimizers[name];
  if (!tuned) return settings;
  const [lowest, target] = floorOf(field);
  const value = (rate) => squared ? Number((rate * rate).toPrecision(12)) : rate;
  const mean = (rate) => {
    const { heights, end } = track(field, name, { ...settings, [tuned]: value(rate) });
    const each = heights.map((h) => Math.log10(Math.max(h / Number(`1e${state.scale}`) - lowest, target)));
    const sum = each.reduce((a, b) => a + b, 0) / each.length;
    return end || !Number.isFinite(sum) ? Infinity : sum;
  };
  const found = DATA.rates.map((rate) => [mean(rate), rate]).sort(([a], [b]) => a - b)[0];
  return found[0] < Infinity ? { ...settings, [tuned]: value(found[1]) } : settings;
}

// The lowest height, and how far above it heights no longer differ.
function floorOf(field) {
  if (surfaceData().target !== null) return [0, surfaceData().target];
  const [[left, right], [bottom, top]] = shownWindow(), k = Array.from({ length: 3600 }, (_, i) => i);
  const xs = Float64Array.from(k, (i) => left + (i % 60) / 59 * (right - left));
  const ys = Float64Array.from(k, (i) => bottom + Math.floor(i / 60) / 59 * (top - bottom));
  const sorted = field.values(xs, ys).filter(Number.isFinite).sort();
  return [sorted[0] ?? 0, ((sorted[180] ?? 1) - (sorted[0] ?? 0)) / 100 || 1e-12];
}

// ---- Python ---------------------------------------------------------------------------------------------------------

// Lines of Python after which `w` is where the track of an optimizer ends.
function pythonOf(field, { name, settings }) {
  const own = Object.fromEntries(settingsOf(name).map(([key, { value }]) => [key, settings[key] ?? value]));
  const made = DATA.optimizers[name].python.replace(/\{([^}]+)\}/g, (_, key) => inDigits(own[key]));
  const lines = ["import numpy as np", "import fallline as fl", ""];
  if (state.surface === OWN) {
    lines.push("def gradient(w):", "    x, y = w", `    return np.array([${field.python.join(", ")}])`, "");
  } else {
    lines.push(`surface = fl.playground.SURFACES["${state.surface}"]`);
  }
  let g = state.surface === OWN ? "gradient(w)" : "surface.value_and_grad(w)[1]";
  if (state.scale) g = `1e${state.scale} * ${g}`;
  if (state.noise) {
    lines.push(`noise = ${inDigits(state.noise)} * np.random.default_rng(${state.seed}).standard_normal((1000, 2)).round(3)`);
    g += " + noise[t]";
  }
  return [...lines, `w = np.array([${state.start.map(inDigits).join(", ")}])`, `opt = ${made}`,
    `for t in range(${state.steps}):`, `    w = opt.step(w, ${g})`, "print(opt.rest(w))"].join("\n");
}

const inDigits = (value) => Number.isInteger(value) && Math.abs(value) < 1e15 ? value.toFixed(1) : String(value);
const DEFAULTS = { ...state };
