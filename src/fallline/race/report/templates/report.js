"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const isDark = () => dark.matches && !root.classList.contains("paper");
  const names = data.names;
  const SVG = "http://www.w3.org/2000/svg";
  const LABEL_HEIGHT = 15;
  let picked = null;

  const colour = name => data.styles[name][isDark() ? "dark" : "light"];
  // Names may be long, with settings in them: charts have room for their beginning, the key and the table for all.
  const label = name => {
    const letters = innerWidth < 640 ? 17 : 26;
    return name.length > letters ? name.slice(0, letters - 1) + "…" : name;
  };
  const plain = text => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");  // Plotly reads tags in its texts
  const faded = name => picked !== null && picked !== name;
  const css = variable => getComputedStyle(root).getPropertyValue(variable).trim();
  const number = value => Number(value).toPrecision(3);

  function element(tag, attributes, parent) {
    const made = document.createElementNS(SVG, tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (parent) parent.append(made);
    return made;
  }

  // ---- the key: line, dash and marker of each optimiser, beside its name wherever it stands -------------------------

  function sample(name) {
    const svg = element("svg", { viewBox: "0 0 30 14", "aria-hidden": "true" });
    const { dash, outline } = data.styles[name];
    element("line", { x1: 0, x2: 30, y1: 7, y2: 7, "stroke-width": 2, "stroke-dasharray": dash, class: "stroke" }, svg);
    element("path", { d: outline, transform: "translate(15 7)", class: "fill" }, svg);
    svg.dataset.name = name;
    return svg;
  }

  function paintSamples() {
    for (const svg of document.querySelectorAll("svg[data-name]")) {
      svg.querySelector(".stroke").style.stroke = colour(svg.dataset.name);
      svg.querySelector(".fill").style.fill = colour(svg.dataset.name);
    }
  }

  function buildKey() {
    const key = document.getElementById("key");
    for (const name of names) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(sample(name), name);
      button.setAttribute("aria-pressed", "false");
      button.addEventListener("click", () => {
        picked = picked === name ? null : name;
        for (const other of key.children) other.setAttribute("aria-pressed", String(other === button && picked !== null));
        drawCharts();
        surfaces.forEach(surface => surface.fade());
      });
      key.append(button);
    }
    for (const cell of document.querySelectorAll("th[data-name]")) cell.prepend(sample(cell.dataset.name));
  }

  // ---- the two line charts -----------------------------------------------------------------------------------------

  function axes(gd, x, y, right) {
    const shared = {
      gridcolor: css("--line"), zeroline: false, linecolor: css("--line"), fixedrange: true,
      tickfont: { size: 12 }, tickangle: 0, exponentformat: "power", automargin: false,
    };
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, color: css("--soft"), size: 13 },
      margin: { l: 60, r: right, t: 12, b: 46 }, showlegend: false, hovermode: "closest", dragmode: false,
      hoverlabel: { bgcolor: css("--card"), bordercolor: css("--line"), font: { color: css("--ink") } },
      width: gd.clientWidth, height: gd.clientHeight,
      xaxis: { ...shared, ...x }, yaxis: { ...shared, ...y },
    };
  }

  // Labels beside the plot, moved apart so that none covers another, each tied to its line's end.
  function endLabels(layout, ends) {
    const { margin, width, height } = layout;
    const plot = { w: width - margin.l - margin.r, h: height - margin.t - margin.b };
    const fraction = (value, [low, high]) => (value - low) / (high - low);
    const spots = ends.map(end => ({
      ...end,
      px: plot.w * fraction(end.x, layout.xaxis.range),
      py: plot.h * (1 - fraction(end.y, layout.yaxis.range)),
    }));
    spots.sort((a, b) => a.py - b.py);
    const placed = apart(spots.map(spot => spot.py), LABEL_HEIGHT, 0, plot.h);
    return spots.map((spot, i) => ({
      x: spot.x, y: spot.y, text: plain(label(spot.name)), showarrow: true, arrowhead: 0, arrowwidth: 1, standoff: 3,
      arrowcolor: colour(spot.name), ax: plot.w - spot.px + 14, ay: placed[i] - spot.py, xanchor: "left", yanchor: "middle",
      font: { size: 12, color: css("--ink") }, opacity: faded(spot.name) ? .15 : 1,
    }));
  }

  // Sorted positions, moved as little as it takes to be `gap` apart within [low, high].
  function apart(positions, gap, low, high) {
    const placed = [];
    positions.forEach((at, i) => placed.push(Math.max(at, i ? placed[i - 1] + gap : low)));
    for (let i = placed.length - 1, limit = high; i >= 0; i--, limit = placed[i + 1] - gap) {
      placed[i] = Math.min(placed[i], limit);
    }
    return placed;
  }

  const log10 = Math.log10;
  const padded = (low, high) => [low - .06 * (high - low || 1), high + .06 * (high - low || 1)];

  function range(values, cap) {
    const usable = values.filter(v => v !== null && v > 0).map(v => Math.min(v, cap));
    return padded(log10(Math.min(...usable)), log10(Math.max(...usable)));
  }

  // How wide the longest name is, in the font of labels.
  function nameWidth(size) {
    const context = document.createElement("canvas").getContext("2d");
    context.font = `${size}px ${getComputedStyle(document.body).fontFamily}`;
    return Math.max(...names.map(name => context.measureText(label(name)).width));
  }

  const rightMargin = () => 22 + nameWidth(12);

  function translucent(hex, alpha) {
    const [r, g, b] = [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
    return `rgba(${r},${g},${b},${alpha})`;
  }

  // An axis of losses, with a tick at each decade or, where there are many, at each so many.
  function logarithmic(text, range) {
    return { title: { text, standoff: 4 }, type: "log", dtick: Math.max(1, Math.ceil((range[1] - range[0]) / 12)), range };
  }

  function drawCurves() {
    const gd = document.getElementById("curves-chart");
    if (!gd) return;
    const steps = data.steps, traces = [];
    const cap = 4 * (data.start > 0 ? data.start : Infinity);
    const layout = axes(gd,
      { title: { text: "step" }, range: [0, steps.at(-1)] },
      logarithmic("training loss", range(data.curves.flatMap(c => [...c.median, ...c.low]), cap)), rightMargin());
    data.curves.forEach(({ name, low, high }) => {
      const known = steps.map((_, i) => i).filter(i => low[i] !== null && high[i] !== null);
      const band = { mode: "lines", line: { width: 0 }, hoverinfo: "skip" };
      traces.push({ ...band, x: known.map(i => steps[i]), y: known.map(i => high[i]) });
      traces.push({ ...band, x: known.map(i => steps[i]), y: known.map(i => low[i]), fill: "tonexty",
        fillcolor: translucent(colour(name), faded(name) ? .01 : picked === name ? .3 : .09) });
    });
    data.curves.forEach(({ name, median }, k) => {
      const { dash, marker } = data.styles[name];
      const opacity = faded(name) ? .12 : 1;
      const line = { color: colour(name), width: picked === name ? 3 : 2, dash: dash || "solid" };
      const hovertemplate = `${plain(name)}<br>step %{x}: %{y:.3g}<extra></extra>`;
      traces.push({ x: steps, y: median, mode: "lines", line, opacity, hovertemplate });
      const spots = steps.map((_, i) => i).filter(i => i % 10 === k % 10 || i === steps.length - 1);
      traces.push({ x: spots.map(i => steps[i]), y: spots.map(i => median[i]), mode: "markers", opacity, hovertemplate,
        marker: { symbol: marker, size: 8, color: colour(name) } });
    });
    const ends = data.curves.flatMap(({ name, median }) => {
      const last = median.findLastIndex(v => v !== null && v > 0);
      return last < 0 ? [] : [{ name, x: steps[last], y: Math.min(log10(median[last]), layout.yaxis.range[1]) }];
    });
    layout.annotations = endLabels(layout, ends);
    if (data.target > 0) {
      layout.shapes = [{ type: "line", x0: 0, x1: 1, xref: "paper", y0: data.target, y1: data.target, layer: "below",
        line: { color: css("--soft"), width: 1, dash: "2,3" } }];
      layout.annotations.push({ x: 0, xref: "paper", y: log10(data.target), text: ` target ${Number(number(data.target))}`,
        showarrow: false, xanchor: "left", yanchor: "bottom", font: { size: 12, color: css("--soft") } });
    }
    Plotly.react(gd, traces, layout, { displayModeBar: false, responsive: false });
  }

  function drawRates() {
    const gd = document.getElementById("rates-chart");
    if (!gd) return;
    const cap = 4 * (data.start > 0 ? data.start : Infinity);
    const every = data.rates.flatMap(r => r.rates);
    const layout = axes(gd,
      { title: { text: "rate" }, type: "log", dtick: gd.clientWidth < 500 ? 2 : 1, range: padded(log10(Math.min(...every)), log10(Math.max(...every))) },
      logarithmic("training loss at the end", range(data.rates.flatMap(r => r.losses), cap)), rightMargin());
    const traces = [], ends = [];
    for (const { name, rates, values, losses, chosen } of data.rates) {
      const { dash, marker } = data.styles[name];
      traces.push({ x: rates, y: losses, mode: "lines+markers", connectgaps: false, opacity: faded(name) ? .12 : 1,
        line: { color: colour(name), width: picked === name ? 3 : 1.8, dash: dash || "solid" },
        marker: { symbol: marker, size: 8, color: colour(name) }, customdata: values,
        hovertemplate: `${plain(name)}, %{customdata}<br>%{y:.3g}<extra></extra>` });
      const best = rates.indexOf(chosen);
      if (best >= 0) traces.push({ x: [chosen], y: [losses[best]], mode: "markers", hoverinfo: "skip",
        opacity: faded(name) ? .12 : 1,
        marker: { symbol: "circle-open", size: 17, color: colour(name), line: { width: 2 } } });
      const last = losses.findLastIndex(v => v !== null && v > 0 && log10(v) <= layout.yaxis.range[1]);
      if (last >= 0) ends.push({ name, x: log10(rates[last]), y: log10(losses[last]) });
    }
    layout.annotations = endLabels(layout, ends);
    Plotly.react(gd, traces, layout, { displayModeBar: false, responsive: false });
  }

  // Annotations on a logarithmic axis take exponents, so linear x goes in as it is and log x as its exponent.
  function drawCharts() {
    drawCurves();
    drawRates();
  }

  // ---- surfaces: contours by Plotly, paths on top of them ----------------------------------------------------------

  class Surface {
    constructor(figure) {
      this.data = data.surfaces[Number(figure.dataset.surface)];
      this.contour = figure.querySelector(".contour");
      this.svg = figure.querySelector("svg");
      this.id = `window-${figure.dataset.surface}`;
    }

    draw() {
      // Plotly draws contours when it has time: one that it has not drawn yet would not take another size.
      const gd = document.createElement("div");
      gd.className = "contour";
      this.contour.replaceWith(gd);
      this.contour = gd;
      const { x, y, z, levels, window: [xs, ys] } = this.data;
      this.margin = { l: 30, r: 33 + nameWidth(11.5), t: 8, b: 24 };
      this.size = { w: gd.clientWidth, h: gd.clientHeight };
      const layout = axes(gd, { range: xs, nticks: 5, showgrid: false }, { range: ys, nticks: 5, showgrid: false }, 0);
      const shades = isDark() ? [[0, "#35424f"], [1, "#171b20"]] : [[0, "#ccd8de"], [1, "#f8f7f2"]];
      Plotly.react(gd, [{
        type: "contour", x, y, z, ncontours: levels, colorscale: shades, showscale: false, hoverinfo: "skip",
        line: { width: .7, color: isDark() ? "#4b5866" : "#b3bec3" },
      }], { ...layout, margin: this.margin }, { displayModeBar: false, staticPlot: true });
      this.overlay();
    }

    at([x, y]) {
      const { margin: m, size: s } = this, [[x0, x1], [y0, y1]] = this.data.window;
      return [m.l + (x - x0) / (x1 - x0) * (s.w - m.l - m.r), m.t + (y1 - y) / (y1 - y0) * (s.h - m.t - m.b)];
    }

    inside([px, py]) {
      const { margin: m, size: s } = this;
      return px >= m.l && px <= s.w - m.r && py >= m.t && py <= s.h - m.b;
    }

    overlay() {
      const { margin: m, size: s, svg } = this;
      svg.replaceChildren();
      svg.setAttribute("viewBox", `0 0 ${s.w} ${s.h}`);
      const clip = element("clipPath", { id: this.id }, element("defs", {}, svg));
      element("rect", { x: m.l, y: m.t, width: s.w - m.l - m.r, height: s.h - m.t - m.b }, clip);
      const ground = element("g", { "clip-path": `url(#${this.id})` }, svg);
      const ink = css("--soft");
      for (const point of this.data.minima) {
        const [px, py] = this.at(point);
        element("path", { d: `M${px - 5},${py}h10M${px},${py - 5}v10`, stroke: ink, "stroke-width": 1.4 }, ground);
      }
      const [sx, sy] = this.at(this.data.start);
      element("circle", { cx: sx, cy: sy, r: 5, fill: "none", stroke: ink, "stroke-width": 1.4 }, ground);
      this.lines = this.data.paths.map(path => this.line(path, ground));
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
        text: Object.assign(element("text", {}, this.svg), { textContent: label(path.name) }),
      };
    }

    // In the order of where the paths end, so that leaders cross as little as can be.
    placeLabels() {
      const { margin: m, size: s } = this;
      const sorted = [...this.lines].sort((a, b) => a.points.at(-1)[1] - b.points.at(-1)[1]);
      const gap = Math.min(19, (s.h - m.t - m.b) / sorted.length);
      const wanted = sorted.map(line => Math.min(Math.max(line.points.at(-1)[1], m.t), s.h - m.b));
      apart(wanted, gap, m.t + 7, s.h - m.b - 4).forEach((y, i) => {
        const line = sorted[i], x = s.w - m.r + 20;
        line.label = [x - 7, y];
        line.mark.setAttribute("transform", `translate(${x} ${y}) scale(.8)`);
        line.text.setAttribute("x", x + 9);
        line.text.setAttribute("y", y);
      });
    }

    show(step) {
      for (const line of this.lines) {
        const upTo = line.points.slice(0, step + 1), end = upTo.at(-1), seen = this.inside(end);
        line.trail.setAttribute("d", "M" + upTo.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join("L"));
        line.head.setAttribute("transform", `translate(${end[0]} ${end[1]}) scale(.9)`);
        line.head.style.display = line.leader.style.display = seen ? "" : "none";
        line.leader.setAttribute("d", `M${line.label[0]},${line.label[1]}L${end[0]},${end[1]}`);
      }
    }

    fade() {
      for (const { name, trail, leader, head, mark, text } of this.lines) {
        for (const part of [trail, leader, head, mark, text]) part.classList.toggle("faded", faded(name));
      }
    }
  }

  // ---- one set of controls for all surfaces ------------------------------------------------------------------------

  const surfaces = [...document.querySelectorAll("[data-surface]")].map(figure => new Surface(figure));
  const section = document.getElementById("surfaces");
  const SECONDS = 10;
  const last = Math.max(0, ...data.surfaces.map(surface => surface.steps));
  let step = last, playing = null;

  function show(next) {
    step = next;
    surfaces.forEach(surface => surface.show(step));
    section.dataset.step = step;
    document.getElementById("step").value = step;
    document.getElementById("shown").textContent = `step ${step} of ${last}`;
  }

  function pause() {
    if (playing !== null) cancelAnimationFrame(playing);
    playing = null;
    const button = document.getElementById("play");
    button.textContent = "Play";
    button.setAttribute("aria-pressed", "false");
  }

  function play() {
    const from = step >= last ? 0 : step;
    let began = null;
    const frame = now => {
      began ??= now;
      const next = Math.min(last, from + Math.floor((now - began) / 1000 * last / SECONDS));
      if (next !== step) show(next);
      if (next >= last) pause();
      else playing = requestAnimationFrame(frame);
    };
    show(from);
    playing = requestAnimationFrame(frame);
    const button = document.getElementById("play");
    button.textContent = "Pause";
    button.setAttribute("aria-pressed", "true");
  }

  function buildControls() {
    if (!section) return;
    const slider = document.getElementById("step");
    slider.max = last;
    slider.addEventListener("input", () => { pause(); show(Number(slider.value)); });
    document.getElementById("play").addEventListener("click", () => playing === null ? play() : pause());
  }

  let drawn = null;  // for which width

  function drawAll() {
    drawn = document.body.clientWidth;
    paintSamples();
    drawCharts();
    surfaces.forEach(surface => surface.draw());
    if (section) show(step);
  }

  // ---- on paper: drawn for the width of a page, with nothing folded away and no column beyond the edge ----------------

  let opened = [];

  function lay(onPaper) {
    if (root.classList.contains("paper") === onPaper) return;
    root.classList.toggle("paper", onPaper);
    if (onPaper) opened = [...document.querySelectorAll("details:not([open])")];
    for (const details of opened) details.open = onPaper;
    for (const table of document.querySelectorAll("table")) {
      table.style.zoom = "";
      if (onPaper) table.style.zoom = Math.min(1, document.body.clientWidth / table.scrollWidth);
    }
    drawAll();
  }

  const paper = matchMedia("print");
  paper.addEventListener("change", () => lay(paper.matches));
  addEventListener("beforeprint", () => lay(true));
  addEventListener("afterprint", () => lay(false));

  buildKey();
  buildControls();
  drawAll();
  dark.addEventListener("change", drawAll);
  let waiting;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      if (document.body.clientWidth !== drawn) drawAll();
    }, 150);
  });
})();
