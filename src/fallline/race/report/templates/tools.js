// What every chart needs: the data, colours and names, and elements of SVG.

const data = JSON.parse(document.getElementById("data").textContent);
const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => dark.matches && !root.classList.contains("paper");
let picked = null;  // the one optimiser that is looked at, if any

const colour = name => data.styles[name][isDark() ? "dark" : "light"];
const faded = name => picked !== null && picked !== name;
const css = variable => getComputedStyle(root).getPropertyValue(variable).trim();
const log10 = Math.log10;

// Names may be long, with settings in them: charts have room for their beginning, the key and the table for all.
const label = name => {
  const letters = innerWidth < 640 ? 17 : 26;
  return name.length > letters ? name.slice(0, letters - 1) + "…" : name;
};

// A number to read: three digits, no zeros to count.
function number(value) {
  const size = Math.abs(value);
  const text = size && (size < 1e-3 || size >= 1e4) ? value.toExponential(2) : String(Number(value.toPrecision(3)));
  return text.replace(/\.?0+e/, "e").replace("e+", "e");
}

function element(tag, attributes, parent) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (parent) parent.append(made);
  return made;
}

function write(text, attributes, parent) {
  return Object.assign(element("text", attributes, parent), { textContent: text });
}

const pathOf = points => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)},${y.toFixed(1)}`).join("");

// Sorted positions, moved as little as it takes to be `gap` apart within [low, high].
function apart(positions, gap, low, high) {
  const placed = [];
  positions.forEach((at, i) => placed.push(Math.max(at, i ? placed[i - 1] + gap : low)));
  for (let i = placed.length - 1, limit = high; i >= 0; i--, limit = placed[i + 1] - gap) {
    placed[i] = Math.min(placed[i], limit);
  }
  return placed;
}

// How wide the longest name is, in the font of labels.
function nameWidth(size) {
  const context = document.createElement("canvas").getContext("2d");
  context.font = `${size}px ${getComputedStyle(document.body).fontFamily}`;
  return Math.max(...data.names.map(name => context.measureText(label(name)).width));
}

// The line, dash and marker of an optimiser, as it stands beside its name.
function sample(name) {
  const svg = element("svg", { viewBox: "0 0 30 14", "aria-hidden": "true" });
  const { dash, outline } = data.styles[name];
  element("line", { x1: 0, x2: 30, y1: 7, y2: 7, "stroke-width": 2, "stroke-dasharray": dash, class: "stroke" }, svg);
  element("path", { d: outline, transform: "translate(15 7)", class: "fill" }, svg);
  svg.dataset.name = name;
  return svg;
}
