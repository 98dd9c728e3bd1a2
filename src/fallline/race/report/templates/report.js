// The page: the key, the animation's controls, sizes, and paper.

const charts = [["curves-chart", curves], ["rates-chart", rates]].flatMap(([id, of]) => {
  const box = document.getElementById(id);
  return box ? [new Chart(box, of)] : [];
});

// ---- the key: line, dash and marker of each optimiser, beside its name wherever it stands ---------------------------

function paintSamples() {
  for (const svg of document.querySelectorAll("svg[data-name]")) {
    svg.querySelector(".stroke").style.stroke = colour(svg.dataset.name);
    svg.querySelector(".fill").style.fill = colour(svg.dataset.name);
  }
}

function buildKey() {
  const key = document.getElementById("key");
  for (const name of data.names) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(sample(name), name);
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => {
      picked = picked === name ? null : name;
      for (const other of key.children) other.setAttribute("aria-pressed", String(other === button && picked !== null));
      for (const drawing of [...charts, ...surfaces]) drawing.fade();
    });
    key.append(button);
  }
  for (const cell of document.querySelectorAll("th[data-name]")) cell.prepend(sample(cell.dataset.name));
}

// ---- the formulas, each below its row ----------------------------------------------------------------------------------

for (const button of document.querySelectorAll("button.open")) {
  const below = document.getElementById(button.getAttribute("aria-controls"));
  button.addEventListener("click", () => {
    below.hidden = !below.hidden;
    button.setAttribute("aria-expanded", String(!below.hidden));
  });
}

// ---- tables that are broader than the page: they fade where they go on ------------------------------------------------

function hint(scroll) {
  const rest = scroll.scrollWidth - scroll.clientWidth;
  scroll.classList.toggle("more-left", scroll.scrollLeft > 1);
  scroll.classList.toggle("more-right", scroll.scrollLeft < rest - 1);
  scroll.parentElement.classList.toggle("broad", rest > 1);
}

const scrolls = [...document.querySelectorAll(".scroll")];
for (const scroll of scrolls) {
  scroll.addEventListener("scroll", () => hint(scroll), { passive: true });
  scroll.closest("details")?.addEventListener("toggle", () => hint(scroll));
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
  scrolls.forEach(hint);
    charts.forEach(chart => chart.draw());
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
