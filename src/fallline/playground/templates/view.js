// The page: what is drawn, and what can be touched.

const find = (id) => document.getElementById(id);
const made = (tag, attributes = {}, ...within) => {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value);
  }
  element.append(...within);
  return element;
};
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const dark = matchMedia("(prefers-color-scheme: dark)");
const colour = (k) => styleOf(k)[dark.matches ? "dark" : "light"];

// How a chosen optimizer is drawn, apart from the others: each of the ten has a style of its own, the rest take those
// that are left over, then begin again.
function styleOf(k) {
  const taken = new Map();
  for (const own of [true, false]) {
    for (const [i, { name }] of state.chosen.entries()) {
      const style = DATA.optimizers[name].style;
      if (own && style !== null && ![...taken.values()].includes(style)) taken.set(i, style);
      const free = DATA.styles.findIndex((_, j) => ![...taken.values()].includes(j));
      if (!own && !taken.has(i)) taken.set(i, free >= 0 ? free : i % DATA.styles.length);
    }
  }
  return DATA.styles[taken.get(k)];
}

// What a chosen optimizer is called, with a number behind the second of a name.
function titleOf(k) {
  const before = state.chosen.slice(0, k).filter(({ name }) => name === state.chosen[k].name).length;
  return label(state.chosen[k].name) + (before ? ` ${before + 1}` : "");
}

// A number for people: four digits, a power of ten where it is large or small.
function digits(value, precision = 4) {
  const plain = value === 0 || (Math.abs(value) >= 1e-3 && Math.abs(value) < 1e5) || !Number.isFinite(value);
  const text = plain ? String(Number(value.toPrecision(precision))) : value.toExponential(precision - 1).replace(/\.?0*e\+?/, "e");
  return text.replaceAll("-", "−");
}

let field, tracks = [], playing = null;

// ---- from the state to the page -------------------------------------------------------------------------------------

// What depends on the surface and its window; raises nothing: a formula that is none is said to be so.
function newSurface() {
  find("wrong").textContent = "";
  try {
    field = theField();
  } catch (error) {
    find("wrong").textContent = error instanceof RangeError ? "The formula is too long." : error.message;
    return false;
  }
  drawGround();
  return true;
}

function newTracks() {
  tracks = state.chosen.map(({ name, settings }) => track(field, name, settings));
  find("step").max = state.steps;
  state.at = Math.min(state.at, state.steps);
  redraw();
  remember();
}

function redraw() {
  find("step").value = state.at;
  find("shown").textContent = `step ${state.at} of ${state.steps}`;
  find("step").setAttribute("aria-valuetext", find("shown").textContent);
  drawTracks();
  drawStart();
  for (const [k, card] of [...find("cards").children].entries()) showValue(card, tracks[k]);
  drawLooked();
  if (state.chosen.length) find("code").textContent = pythonOf(field, state.chosen[state.looked]);
}

let waiting = null;
function remember() {
  clearTimeout(waiting);
  waiting = setTimeout(() => history.replaceState(null, "", `#${address()}`), 150);
}

// ---- the map --------------------------------------------------------------------------------------------------------

function sized(canvas, ratio = Math.min(devicePixelRatio, 2)) {
  const { width, height } = find("map").getBoundingClientRect();
  const [across, down] = [Math.max(2, Math.round(width * ratio)), Math.max(2, Math.round(height * ratio))];
  if (canvas.width !== across || canvas.height !== down) Object.assign(canvas, { width: across, height: down });
  return [width, height, ratio];
}

function drawGround() {
  const canvas = find("ground");
  sized(canvas);
  paint(canvas, field, shownWindow(), { low: rgb("--low"), high: rgb("--high"), line: rgb("--level") });
  const what = state.surface === OWN ? state.formula : surfaceData().title;
  canvas.setAttribute("aria-label", `Heights of ${what}: the deeper the colour, the lower.`);
}

const rgb = (name) => css(name).match(/\w\w/g).map((pair) => parseInt(pair, 16));

function places() {
  const [[left, right], [bottom, top]] = shownWindow(), [width, height, ratio] = sized(find("tracks"));
  return {
    width, height, ratio,
    place: (x, y) => [(x - left) / (right - left) * width, (top - y) / (top - bottom) * height],
    point: (px, py) => [left + px / width * (right - left), top - py / height * (top - bottom)],
  };
}

function drawTracks() {
  const { width, height, ratio, place } = places(), context = find("tracks").getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.lineJoin = "round";
  context.strokeStyle = css("--ink");
  context.lineWidth = 1.5;
  for (const [px, py] of surfaceData().minima.map((at) => place(...at))) {
    context.stroke(new Path2D(`M${px - 5} ${py}H${px + 5}M${px} ${py - 5}V${py + 5}`));
  }
  const order = [...tracks.keys()].sort((a, b) => (a === state.looked) - (b === state.looked));
  for (const k of order) drawTrack(context, place, k);
  drawLabels(context, place, width, height);
}

function drawTrack(context, place, k) {
  const { xs, ys } = tracks[k], { dash, outline } = styleOf(k), last = Math.min(state.at, xs.length - 1);
  const near = (v, size) => Math.max(-size, Math.min(2 * size, v));
  const path = new Path2D();
  for (let t = 0; t <= last; t++) {
    const [px, py] = place(xs[t], ys[t]);
    if (Number.isFinite(px + py)) path.lineTo(near(px, 4000), near(py, 4000));
  }
  for (const [style, width] of [[css("--page"), 4], [colour(k), k === state.looked ? 2.6 : 1.7]]) {
    Object.assign(context, { strokeStyle: style, lineWidth: width });
    context.setLineDash(style === css("--page") ? [] : dash.split(",").filter(Boolean).map(Number));
    context.stroke(path);
  }
  context.setLineDash([]);
  const [px, py] = place(xs[last], ys[last]), head = new Path2D();
  head.addPath(new Path2D(outline), new DOMMatrix([1.15, 0, 0, 1.15, near(px, 4000), near(py, 4000)]));
  Object.assign(context, { fillStyle: colour(k), strokeStyle: css("--page"), lineWidth: 1 });
  context.fill(head);
  context.stroke(head);
}

// Names beside the heads, moved up or down so that none covers another; of those outside, nothing.
function drawLabels(context, place, width, height) {
  context.font = `600 13px ${getComputedStyle(document.body).fontFamily}`;
  context.textBaseline = "middle";
  const spots = tracks.map(({ xs, ys }, k) => {
    const [px, py] = place(...[xs, ys].map((each) => each[Math.min(state.at, xs.length - 1)]));
    const text = titleOf(k), wide = context.measureText(text).width;
    return { k, text, wide, py, left: px + 14 + wide < width ? px + 10 : px - 10 - wide, seen: px >= 0 && px <= width && py >= 0 && py <= height };
  }).filter(({ seen }) => seen).sort((a, b) => a.py - b.py);
  for (const [i, spot] of spots.entries()) {
    for (const above of spots.slice(0, i)) {
      if (spot.left < above.left + above.wide + 4 && above.left < spot.left + spot.wide + 4) spot.py = Math.max(spot.py, above.py + 15);
    }
  }
  const over = Math.max(0, ...spots.map(({ py }) => py + 9 - height));
  for (const { k, text, left, py } of spots) {
    Object.assign(context, { strokeStyle: css("--page"), lineWidth: 4, fillStyle: css("--ink") });
    context.strokeText(text, left, py - over);
    context.fillText(text, left, py - over);
    context.fillStyle = colour(k);
    context.fillRect(left, py - over + 8, context.measureText(text).width, 1.5);
  }
}

function drawStart() {
  const { place } = places(), [px, py] = place(...state.start);
  Object.assign(find("start").style, { left: `${px}px`, top: `${py}px` });
  find("start").setAttribute("aria-label", `Start at x ${digits(state.start[0])}, y ${digits(state.start[1])}`);
}

// ---- the optimizers -------------------------------------------------------------------------------------------------

function drawCards() {
  find("cards").replaceChildren(...state.chosen.map(card));
}

function card({ name, settings }, k) {
  const looked = k === state.looked;
  const element = made("div", { class: "card", style: `--own: ${colour(k)}`, ...(looked ? { "data-looked-at": "" } : {}) },
    made("div", { class: "head" },
      made("button", { type: "button", class: "name", "aria-expanded": String(looked), onclick: () => lookAt(k) }, sample(k), titleOf(k)),
      made("span", { class: "value" }),
      made("button", { type: "button", "aria-label": `Remove ${titleOf(k)}`, onclick: () => remove(k) }, "✕")));
  if (looked) {
    element.append(...settingsOf(name).map(([key, own]) => slider(k, key, own, settings[key] ?? own.value)));
    if (DATA.optimizers[name].tuned) {
      element.append(made("div", { class: "row" }, made("button", { type: "button", onclick: () => tune([k]) }, "Best rate here"),
        made("button", { type: "button", onclick: () => { state.chosen[k].settings = {}; drawCards(); newTracks(); } }, "Defaults")));
    }
  }
  return element;
}

function sample(k) {
  const { dash, outline } = styleOf(k), svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 30 14");
  svg.setAttribute("aria-hidden", "true");
  svg.innerHTML = `<path d="M0 7H30" stroke="${colour(k)}" stroke-width="2" stroke-dasharray="${dash}"/><path d="${outline}" transform="translate(15 7)" fill="${colour(k)}"/>`;
  return svg;
}

function slider(k, key, own, value) {
  const title = argument(state.chosen[k].name, key), every = offered(own), nearest = (v) => every.reduce((best, each, i) => Math.abs(each - v) < Math.abs(every[best] - v) ? i : best, 0);
  const range = made("input", { type: "range", min: 0, max: every.length - 1, value: nearest(value), "aria-label": title });
  const typedIn = made("input", { type: "number", step: "any", value: String(value), "aria-label": `${title}, ${own.must}` });
  const put = (v) => {
    state.chosen[k].settings[key] = v;
    range.setAttribute("aria-valuetext", String(v));
    newTracks();
  };
  range.addEventListener("input", () => { typedIn.value = String(every[range.value]); put(every[range.value]); });
  typedIn.addEventListener("change", () => {
    const v = typedIn.value === "" ? NaN : Number(typedIn.value);
    const valid = v >= own.low && v <= own.high;
    find("said").textContent = "";
    typedIn.setCustomValidity(valid ? "" : `${title} must be ${own.must}.`);
    if (!typedIn.reportValidity()) return;
    range.value = nearest(v);
    put(v);
  });
  return made("div", { class: "slider" }, made("span", { title: `${title} must be ${own.must}` }, title), range, typedIn);
}

// What Python calls a setting: the name of an argument, or a place in one.
function argument(name, key) {
  for (const [, own, value] of DATA.optimizers[name].python.matchAll(/(\w+)=(\([^)]*\)|\{[^}]*\})/g)) {
    const place = value.match(/\{[^}]*\}/g)?.indexOf(`{${key}}`) ?? -1;
    if (place >= 0) return value.startsWith("(") ? `${own}[${place}]` : own;
  }
  return key;
}

function showValue(element, { heights, end }) {
  const height = heights[Math.min(state.at, heights.length - 1)], ended = end && state.at >= heights.length - 1;
  element.querySelector(".value").textContent = ended ? `ended at step ${heights.length - 1}: ${end}` : `f = ${digits(height, 3)}`;
}

function lookAt(k) {
  state.looked = k;
  drawCards();
  redraw();
  remember();
}

function remove(k) {
  state.chosen.splice(k, 1);
  if (state.looked >= k) state.looked = Math.max(0, state.looked - 1);
  drawCards();
  newTracks();
}

function tune(which) {
  for (const k of which) state.chosen[k].settings = bestRate(field, state.chosen[k]);
  drawCards();
  newTracks();
}

// ---- one of them, step by step --------------------------------------------------------------------------------------

function drawLooked() {
  const chosen = state.chosen[state.looked];
  find("looking").hidden = find("share").hidden = !chosen;
  if (!chosen) return;
  const { at, heights } = tracks[state.looked], now = Math.min(state.at, at.length - 1);
  find("whose").textContent = titleOf(state.looked);
  find("when").textContent = now ? `step ${now}` : "before its first step";
  drawFormulas(chosen.name, tracks[state.looked], now);
  const slots = Object.keys(at[0]).filter((key) => key.startsWith("."));
  const rows = [["f", heights, true], ["g", at.map(({ g }) => g[state.coordinate])],
    ...slots.map((slot) => [slot.slice(1), at.map((each) => each[slot][state.coordinate])]),
    ["Δθ", at.map(({ d }) => d[state.coordinate])]];
  find("charts").replaceChildren(...rows.map(([name, values, logarithmic]) => chart(name, values, now, colour(state.looked), logarithmic)));
}

function chart(name, values, now, stroke, logarithmic) {
  const shown = values.map((v) => logarithmic ? Math.log10(v) : v), finite = shown.filter(Number.isFinite);
  const low = Math.min(...finite), high = Math.max(...finite), [from, size] = high > low ? [low, high - low] : [low - 1, 2];
  const place = (v) => 100 - (v - from) / size * 100, n = Math.max(state.steps, 1);
  const path = shown.map((v, t) => Number.isFinite(v) ? `${t && Number.isFinite(shown[t - 1]) ? "L" : "M"}${(t / n * 300).toFixed(2)} ${place(v).toFixed(2)}` : "").join("");
  const zero = !logarithmic && low < 0 && high > 0 ? `<line x1="0" x2="300" y1="${place(0)}" y2="${place(0)}"/>` : "";
  const said = `from ${digits(Math.min(...values.filter(Number.isFinite)), 3)} to ${digits(Math.max(...values.filter(Number.isFinite)), 3)}`;
  const element = made("div", { class: "chart" }, made("p", {}, made("strong", {}, `${name} = ${digits(values[now])}`),
    made("span", { class: "soft" }, said + (logarithmic ? " (log)" : ""))));
  element.insertAdjacentHTML("beforeend", `<svg viewBox="0 0 300 100" preserveAspectRatio="none" aria-hidden="true">${zero}<line class="now" x1="${now / n * 300}" x2="${now / n * 300}" y1="0" y2="100"/><path d="${path}" stroke="${stroke}"/></svg>`);
  return element;
}
