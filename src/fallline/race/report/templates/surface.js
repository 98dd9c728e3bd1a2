// A surface: shades and contours of its heights on a canvas, and the paths of all optimisers on top of them.

// The points of a path, by the rule that it names where it has none of its own.
function pointsOf({ points, rule, count }, field, start) {
  if (points) return points;
  const optimizer = new Optimizer(rule).begin(start), made = [Array.from(optimizer.rest())];
  while (made.length < count) {
    optimizer.step(field.gradient(...optimizer.arrays.x));
    made.push(Array.from(optimizer.rest()));
  }
  return made;
}

class Surface {
  constructor(figure) {
    this.data = data.surfaces[Number(figure.dataset.surface)];
    this.box = figure.querySelector(".surface");
    this.canvas = figure.querySelector("canvas");
    this.svg = figure.querySelector("svg");
    this.field = traced(programs[this.data.name]);
    this.paths = this.data.paths.map(path => ({ name: path.name, points: pointsOf(path, this.field, this.data.start) }));
    this.id = `window-${figure.dataset.surface}`;
  }

  draw() {
    this.size = { w: this.box.clientWidth, h: this.box.clientHeight };
    this.room = { left: 34, right: this.size.w - 33 - nameWidth(11.5), top: 8, bottom: this.size.h - 24 };
    const { window: [xs, ys] } = this.data, { left, right, top, bottom } = this.room;
    this.x = new Axis({ range: xs }, left, right);
    this.y = new Axis({ range: ys }, bottom, top);
    this.ground();
    this.overlay();
  }

  at([x, y]) {
    return [this.x.at(x), this.y.at(y)];
  }

  inside([px, py]) {
    const { left, right, top, bottom } = this.room;
    return px >= left && px <= right && py >= top && py <= bottom;
  }

  ground() {
    const { canvas, room: { left, right, top, bottom } } = this, scale = Math.min(2, Math.max(1.5, devicePixelRatio));
    const w = right - left, h = bottom - top, [low, high] = isDark() ? data.shades.dark : data.shades.light;
    Object.assign(canvas, { width: Math.round(w * scale), height: Math.round(h * scale) });
    Object.assign(canvas.style, { left: `${left}px`, top: `${top}px`, width: `${w}px`, height: `${h}px` });
    const rgb = hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
    const line = data.shades[isDark() ? "darkLine" : "lightLine"];
    paint(canvas, this.field, this.data.window, { low: rgb(low), high: rgb(high), line: rgb(line) });
  }

  overlay() {
    const { svg, size: { w, h }, room: { left, right, top, bottom } } = this;
    svg.replaceChildren();
    svg.setAttribute("viewBox", `0 0 ${w} ${h}`);
    for (const [at, text] of this.x.ticks(5)) write(text, { x: at, y: bottom + 13, "text-anchor": "middle", class: "tick" }, svg);
    for (const [at, text] of this.y.ticks(5)) write(text, { x: left - 6, y: at, "text-anchor": "end", class: "tick" }, svg);
    const clip = element("clipPath", { id: this.id }, element("defs", {}, svg));
    element("rect", { x: left, y: top, width: right - left, height: bottom - top }, clip);
    const ground = element("g", { "clip-path": `url(#${this.id})` }, svg);
    const ink = css("--soft");
    for (const point of this.data.minima) {
      const [px, py] = this.at(point);
      element("path", { d: `M${px - 5},${py}h10M${px},${py - 5}v10`, stroke: ink, "stroke-width": 1.4 }, ground);
    }
    const [sx, sy] = this.at(this.data.start);
    element("circle", { cx: sx, cy: sy, r: 5, fill: "none", stroke: ink, "stroke-width": 1.4 }, ground);
    this.lines = this.paths.map(path => this.line(path, ground));
    this.placeLabels();
    this.fade();
  }

  line(path, ground) {
    const { dash, outline } = data.styles[path.name];
    const known = path.points.findIndex(([x, y]) => x === null || y === null);
    const points = (known < 0 ? path.points : path.points.slice(0, known)).map(point => this.at(point));
    const tint = colour(path.name);
    return {
      name: path.name, points,
      trail: element("path", { class: "trail", stroke: tint, "stroke-dasharray": dash }, ground),
      leader: element("path", { class: "leader", stroke: tint }, this.svg),
      head: element("path", { class: "head", d: outline, fill: tint }, this.svg),
      mark: element("path", { d: outline, fill: tint }, this.svg),
      text: write(label(path.name), { class: "name" }, this.svg),
    };
  }

  // In the order of where the paths end, so that leaders cross as little as can be.
  placeLabels() {
    const { right, top, bottom } = this.room;
    const sorted = [...this.lines].sort((a, b) => a.points.at(-1)[1] - b.points.at(-1)[1]);
    const gap = Math.min(19, (bottom - top) / sorted.length);
    const wanted = sorted.map(line => Math.min(Math.max(line.points.at(-1)[1], top), bottom));
    apart(wanted, gap, top + 7, bottom - 4).forEach((y, i) => {
      const line = sorted[i], x = right + 20;
      line.label = [x - 7, y];
      line.mark.setAttribute("transform", `translate(${x} ${y}) scale(.8)`);
      line.text.setAttribute("x", x + 9);
      line.text.setAttribute("y", y);
    });
  }

  show(step) {
    for (const line of this.lines) {
      const upTo = line.points.slice(0, step + 1), end = upTo.at(-1), seen = this.inside(end);
      line.trail.setAttribute("d", pathOf(upTo));
      line.head.setAttribute("transform", `translate(${end[0]} ${end[1]}) scale(.9)`);
      line.head.style.display = line.leader.style.display = seen ? "" : "none";
      line.text.classList.toggle("away", !seen);
      line.leader.setAttribute("d", `M${line.label[0]},${line.label[1]}L${end[0]},${end[1]}`);
    }
  }

  fade() {
    for (const { name, trail, leader, head, mark, text } of this.lines) {
      for (const part of [trail, leader, head, mark, text]) part.classList.toggle("faded", faded(name));
    }
  }
}
