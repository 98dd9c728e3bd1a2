// A chart of lines: axes, bands, a marker here and there, names at the ends, and the value under pointer or arrow key.

const LABEL_HEIGHT = 15;
const NEAR = 48;  // pixels from the pointer within which a point is read

class Chart {
  // `of` gives, whenever it is drawn: x and y (axes), series and target. A series has a name, xs, ys (null: none there),
  // low and high (a band), spots (the indices that have a marker), ring (the index of the chosen one) and say(index).
  constructor(box, of) {
    Object.assign(this, { box, of, read: null });
    this.svg = element("svg", { class: "plot", role: "img", "aria-label": box.dataset.label });
    this.readout = Object.assign(document.createElement("div"), { className: "readout", hidden: true });
    this.readout.setAttribute("role", "status");
    box.append(this.svg, this.readout);
    Object.assign(box, { tabIndex: 0 });
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", `${box.dataset.label} Arrow keys read values.`);
    this.svg.addEventListener("pointermove", event => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.tell(null));
    box.addEventListener("blur", () => this.tell(null));
    box.addEventListener("keydown", event => this.key(event));
  }

  draw() {
    const { svg, box } = this, w = box.clientWidth, h = box.clientHeight;
    Object.assign(this, this.of());
    this.room = { left: 62, right: w - 24 - nameWidth(12), top: 10, bottom: h - 46 };
    this.x = new Axis(this.x, this.room.left, this.room.right);
    this.y = new Axis(this.y, this.room.bottom, this.room.top);
    svg.replaceChildren();
    svg.setAttribute("viewBox", `0 0 ${w} ${h}`);
    svg.setAttribute("width", w);
    svg.setAttribute("height", h);
    this.frame();
    const clip = element("clipPath", { id: `${box.id}-room` }, element("defs", {}, svg));
    const { left, right, top, bottom } = this.room;
    element("rect", { x: left, y: top - 4, width: right - left + 4, height: bottom - top + 8 }, clip);
    const ground = element("g", { "clip-path": `url(#${clip.id})` }, svg);
    this.series.forEach(line => { line.at = line.ys.map((y, i) => y === null ? null : [this.x.at(line.xs[i]), this.y.at(y)]); });
    this.series.filter(line => line.low).forEach(line => this.band(line, ground));
    this.series.forEach(line => this.line(line, ground));
    this.goal();
    this.names();
    this.spot = element("circle", { class: "spot", r: 6 }, svg);
    this.tell(null);
    this.fade();
  }

  frame() {
    const { svg, x, y, room: { left, right, top, bottom } } = this;
    element("rect", { class: "room", x: left, y: top, width: right - left, height: bottom - top }, svg);
    for (const [at, text] of y.ticks(12)) {
      element("path", { class: "grid", d: `M${left},${at}H${right}` }, svg);
      write(text, { x: left - 8, y: at, "text-anchor": "end" }, svg);
    }
    for (const [at, text] of x.ticks(Math.max(3, Math.floor((right - left) / 70)))) {
      element("path", { class: "grid", d: `M${at},${top}V${bottom}` }, svg);
      write(text, { x: at, y: bottom + 14, "text-anchor": "middle" }, svg);
    }
    write(x.text, { class: "title", x: (left + right) / 2, y: bottom + 36, "text-anchor": "middle" }, svg);
    write(y.text, { class: "title", "text-anchor": "middle", transform: `translate(12 ${(top + bottom) / 2}) rotate(-90)` }, svg);
  }

  goal() {
    if (!(this.target > 0)) return;
    const { svg, y, room: { left, right } } = this, at = y.at(this.target);
    element("path", { class: "target", d: `M${left},${at}H${right}` }, svg);
    write(`target ${number(this.target)}`, { class: "haloed", x: left + 4, y: at + 10 }, svg);
  }

  band({ name, xs, low, high }, ground) {
    const known = xs.map((_, i) => i).filter(i => low[i] !== null && high[i] !== null);
    const edge = values => known.map(i => [this.x.at(xs[i]), this.y.at(values[i])]);
    const around = [...edge(high), ...edge(low).reverse()];
    element("path", { class: "band", d: pathOf(around) + "Z", fill: colour(name), "data-line": name }, ground);
  }

  line(line, ground) {
    const { name, at, spots, ring } = line, { dash, outline } = data.styles[name];
    const tint = colour(name), group = element("g", { class: "series", "data-line": name }, ground);
    const pieces = [[]];
    for (const point of at) point ? pieces.at(-1).push(point) : pieces.push([]);
    element("path", { class: "line", d: pieces.map(pathOf).join(""), stroke: tint, "stroke-dasharray": dash }, group);
    for (const i of spots.filter(i => at[i])) {
      element("path", { d: outline, fill: tint, transform: `translate(${at[i]}) scale(.8)` }, group);
    }
    if (at[ring]) element("circle", { class: "ring", cx: at[ring][0], cy: at[ring][1], r: 9, stroke: tint }, group);
  }

  // Names beside the plot, moved apart so that none covers another, each tied to its line's end.
  names() {
    const { left, right, top, bottom } = this.room;
    const held = ([x, y]) => [Math.min(Math.max(x, left), right), Math.min(Math.max(y, top), bottom)];
    const ends = this.series.map(({ name, at }) => ({ name, end: at.findLast(point => point && point[1] >= top - 1) ?? at.findLast(point => point) }))
      .filter(({ end }) => end).map(({ name, end }) => ({ name, end: held(end) }));
    ends.sort((a, b) => a.end[1] - b.end[1]);
    const gap = Math.min(LABEL_HEIGHT, (bottom - top) / ends.length);
    apart(ends.map(({ end }) => end[1]), gap, top, bottom).forEach((y, i) => {
      const { name, end } = ends[i], group = element("g", { class: "end", "data-line": name }, this.svg);
      element("path", { class: "leader", stroke: colour(name), d: pathOf([end, [right + 12, y]]) }, group);
      write(label(name), { class: "name", x: right + 15, y }, group);
    });
  }

  fade() {
    for (const part of this.svg.querySelectorAll("[data-line]")) {
      part.classList.toggle("faded", faded(part.dataset.line));
      part.classList.toggle("picked", picked === part.dataset.line);
    }
  }

  // ---- reading ----------------------------------------------------------------------------------------------------

  point({ offsetX, offsetY }) {
    let nearest = null, least = NEAR;
    for (const line of this.series) {
      if (faded(line.name)) continue;
      line.at.forEach((at, i) => {
        const away = at ? Math.hypot(at[0] - offsetX, at[1] - offsetY) : Infinity;
        if (away < least) [least, nearest] = [away, [line, i]];
      });
    }
    this.tell(nearest);
  }

  key(event) {
    const ways = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const way = ways[event.key];
    if (event.key === "Escape") this.tell(null);
    if (!way) return;
    event.preventDefault();
    const lines = this.series.filter(line => !faded(line.name) && line.at.some(Boolean));
    if (!lines.length) return;
    let [line, i] = this.read ?? [lines[0], -1];
    if (way[0]) line = lines[(lines.indexOf(line) + way[0] + lines.length) % lines.length];
    const known = line.at.map((_, k) => k).filter(k => line.at[k]);
    i = way[1] > 0 ? known.find(k => k > i) ?? known.at(-1) : way[1] < 0 ? known.findLast(k => k < i) ?? known[0]
      : known.findLast(k => k <= i) ?? known[0];
    this.tell([line, i]);
  }

  tell(read) {
    this.read = read;
    this.readout.hidden = !read;
    this.spot.style.display = read ? "" : "none";
    if (!read) return;
    const [line, i] = read, [x, y] = line.at[i];
    this.readout.textContent = `${line.name}\n${line.say(i)}`;
    this.spot.setAttribute("transform", `translate(${x} ${y})`);
    this.spot.setAttribute("stroke", colour(line.name));
    const { offsetWidth: w, offsetHeight: h } = this.readout;
    this.readout.style.left = `${Math.max(0, Math.min(x + 12, this.box.clientWidth - w))}px`;
    this.readout.style.top = `${Math.max(0, y > h + 16 ? y - h - 10 : y + 12)}px`;
  }
}

// What the race draws: losses by step, and the result by rate.

const CAP = 4 * (data.start > 0 ? data.start : Infinity);  // losses above have diverged, or will

function curves() {
  const xs = data.steps, y = Axis.ofLosses("training loss", data.curves.flatMap(c => [...c.median, ...c.low]), CAP);
  const series = data.curves.map(({ name, median, low, high }, k) => ({
    name, xs, ys: median, low, high, ring: -1,
    spots: xs.map((_, i) => i).filter(i => i % 10 === k % 10 || i === xs.length - 1),
    say: i => `step ${xs[i]}: ${number(median[i])}`,
  }));
  return { x: { text: "step", log: false, range: [0, xs.at(-1)] }, y, series, target: data.target };
}

function rates() {
  const every = data.rates.flatMap(r => r.rates).map(log10);
  const y = Axis.ofLosses("training loss at the end", data.rates.flatMap(r => r.losses), CAP);
  const series = data.rates.map(({ name, rates: xs, values, losses: ys, chosen }) => ({
    name, xs, ys, spots: xs.map((_, i) => i), ring: xs.indexOf(chosen), say: i => `${values[i]}: ${number(ys[i])}`,
  }));
  return { x: { text: "rate", log: true, range: padded(Math.min(...every), Math.max(...every)) }, y, series };
}
