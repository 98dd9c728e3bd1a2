// What is touched, and the beginning.

// ---- playing --------------------------------------------------------------------------------------------------------

const SECONDS = 6;  // from the first step to the last

function play() {
  if (state.at >= state.steps) state.at = 0;
  let last = performance.now(), gone = state.at;
  const frame = (now) => {
    gone += Math.max(0, now - last) / 1000 / SECONDS * state.steps;  // a frame may be older than the click
    last = now;
    state.at = Math.min(state.steps, Math.floor(gone));
    redraw();
    if (state.at < state.steps) playing = requestAnimationFrame(frame);
    else pause();
  };
  playing = requestAnimationFrame(frame);
  find("play").textContent = "Pause";
}

function pause() {
  cancelAnimationFrame(playing);
  playing = null;
  find("play").textContent = "Play";
}

function goTo(step) {
  if (playing !== null) pause();
  state.at = Math.max(0, Math.min(state.steps, step));
  redraw();
}

find("play").addEventListener("click", () => playing === null ? play() : pause());
find("back").addEventListener("click", () => goTo(state.at - 1));
find("on").addEventListener("click", () => goTo(state.at + 1));
find("step").addEventListener("input", () => goTo(Number(find("step").value)));

// ---- the start ------------------------------------------------------------------------------------------------------

function moveStart(x, y) {
  const rounded = ([low, high], v) => Number(v.toFixed(Math.max(0, Math.min(20, 3 - Math.floor(Math.log10(high - low))))));
  const [across, down] = shownWindow();
  state.start = [rounded(across, x), rounded(down, y)];
  newTracks();
}

find("map").addEventListener("pointerdown", (event) => {
  const box = find("map").getBoundingClientRect();
  const move = (at) => moveStart(...places().point(at.clientX - box.left, at.clientY - box.top));
  const end = () => {
    find("map").removeEventListener("pointermove", move);
    if (playing === null && state.at === 0) play();
  };
  if (event.button !== 0) return;
  event.preventDefault();
  find("start").focus({ preventScroll: true });
  find("map").setPointerCapture(event.pointerId);
  find("map").addEventListener("pointermove", move);
  find("map").addEventListener("pointerup", end, { once: true });
  find("map").addEventListener("pointercancel", end, { once: true });
  move(event);
});

find("start").addEventListener("keydown", (event) => {
  const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
  if (!way) return;
  event.preventDefault();
  const share = event.shiftKey ? 0.002 : 0.02, [x, y] = shownWindow().map(([low, high], k) => state.start[k] + way[k] * share * (high - low));
  moveStart(x, y);
});

// ---- surface, steps, scale, noise -----------------------------------------------------------------------------------

function changeSurface() {
  find("own").hidden = state.surface !== OWN;
  if (newSurface()) tune(state.chosen.keys());
}

find("surface").addEventListener("change", () => {
  Object.assign(state, { surface: find("surface").value, zoom: 0, at: playing === null ? state.steps : 0 });
  state.start = surfaceData().start;
  changeSurface();
});
find("formula").addEventListener("input", () => {
  state.formula = find("formula").value;
  changeSurface();
});
for (const [id, by] of [["closer", -1], ["farther", 1]]) {
  find(id).addEventListener("click", () => {
    state.zoom = Math.max(-20, Math.min(20, state.zoom + by));
    drawGround();
    redraw();
    remember();
  });
}
for (const name of ["steps", "noise", "seed", "scale"]) {
  find(name).addEventListener("change", () => {
    const [low, high] = NUMBERS[name], value = Number(find(name).value);
    state[name] = Math.max(low, Math.min(high, WHOLE.includes(name) ? Math.round(value) : value)) || 0;
    if (name === "steps") state.at = state.steps;
    find(name).value = state[name];
    newTracks();
  });
}

// ---- optimizers -----------------------------------------------------------------------------------------------------

find("add").addEventListener("change", () => {
  state.chosen.push({ name: find("add").value, settings: {} });
  state.looked = state.chosen.length - 1;
  find("add").value = "";
  tune([state.looked]);
});
find("tune").addEventListener("click", () => tune(state.chosen.keys()));
find("numbers").addEventListener("change", () => {
  state.numbers = find("numbers").checked;
  redraw();
  remember();
});

// ---- to take along --------------------------------------------------------------------------------------------------

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    find("said").textContent = `${what} copied.`;
  } catch {  // where there is no clipboard, of a file in some browsers
    find("said").textContent = `${what} could not be copied: select it below, or in the address bar.`;
  }
}
find("link").addEventListener("click", () => {
  history.replaceState(null, "", `#${address()}`);
  copy(location.href, "Link");
});
find("python").addEventListener("click", () => copy(find("code").textContent, "Python"));

// ---- the beginning --------------------------------------------------------------------------------------------------

function fill() {
  const option = (value, text) => made("option", { value }, text);
  find("surface").replaceChildren(...Object.entries(DATA.surfaces).map(([name, { title }]) => option(name, title)), option(OWN, "my own f(x, y)"));
  find("scale").replaceChildren(...Array.from({ length: 25 }, (_, k) => k - 12).map((e) => option(e, e ? `1e${e}` : "1")));
  const groups = Object.groupBy(Object.keys(rules), (name) => name.startsWith("dialects.") ? `as in ${name.split(".")[1]}` : "fallline");
  for (const [title, names] of Object.entries(groups)) {
    find("add").append(made("optgroup", { label: title }, ...names.map((name) => option(name, label(name)))));
  }
  for (const [k, name] of ["x", "y"].entries()) {
    const radio = made("input", { type: "radio", name: "coordinate", value: k, onchange: () => { state.coordinate = k; redraw(); remember(); } });
    find("coordinate").append(made("label", {}, radio, `coordinate ${name}`));
  }
}

function show() {
  pause();
  take(location.hash.slice(1));
  const told = state.chosen.length > 0;
  if (!told) Object.assign(state, { chosen: DATA.first.map((name) => ({ name, settings: {} })), looked: Math.max(0, DATA.first.indexOf("Adam")) });
  for (const name of ["surface", "formula", "steps", "scale", "noise", "seed"]) find(name).value = state[name];
  find("numbers").checked = state.numbers;
  find("coordinate").querySelectorAll("input")[state.coordinate].checked = true;
  find("own").hidden = state.surface !== OWN;
  state.at = state.steps;
  if (!newSurface()) return;
  if (told) {
    drawCards();
    newTracks();
  } else tune(state.chosen.keys());
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) {
    state.at = 0;
    play();
  }
}

fill();
show();
addEventListener("hashchange", show);
const again = () => { if (field) { drawGround(); drawCards(); redraw(); } };
dark.addEventListener("change", again);
new ResizeObserver(again).observe(find("map"));
