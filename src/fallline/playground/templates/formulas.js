// Formulas, in symbols or in the numbers of a step, for the coordinate that is looked at.

function drawFormulas(name, track, now) {
  const shown = DATA.optimizers[name].formulas, inNumbers = state.numbers && now > 0;
  const value = inNumbers ? (where) => valueAt(track, now, where) : () => null;
  find("formulas").innerHTML = shown.map(([title, lines]) => {
    const rows = lines.map(([result, text]) => {
      const set = text.replace(/\{([^|{}]*)\|([^{}]+)\}/g, (_, where, sign) => inMathML(value(where)) ?? DATA.symbols[sign]);
      const end = inMathML(value(result), false);
      const spaced = inNumbers ? set.replaceAll('<mspace width="0.17em"></mspace>', "<mo>⋅</mo>") : set;
      return end === null ? spaced : spaced.replace(/<\/mtd><\/mtr>$/, `<mo>=</mo>${end}</mtd></mtr>`);
    });
    const head = shown.length > 1 ? `<p class="soft">${title}</p>` : "";
    return `${head}<math display="block"><mtable displaystyle="true">${rows.join("")}</mtable></math>`;
  }).join("");
}

// The value of what a template names, null if that is not known.
function valueAt({ at }, now, where) {
  const { g, d, x, numbers } = at[now], k = state.coordinate;
  if (where in { g, x, d }) return { g, x, d }[where][k];
  if (where === "t") return now;
  if (where.startsWith("#")) return numbers[where.slice(1)];
  const step = at[where.endsWith(" old") ? now - 1 : now], slot = where.replace(/ old$/, "");
  return slot.startsWith(".") ? step[slot][k] : step.numbers[slot] ?? null;
}

function inMathML(value, withinFormula = true) {
  if (value === null) return null;
  const [mantissa, exponent] = digits(value).split("e");
  const scale = `<msup><mn>10</mn><mn>${exponent}</mn></msup>`;
  const number = exponent === undefined ? `<mn>${mantissa}</mn>`
    : mantissa === "1" ? scale : `<mrow><mn>${mantissa}</mn><mo>⋅</mo>${scale}</mrow>`;
  return value < 0 && withinFormula ? `<mrow><mo form="prefix" stretchy="false">(</mo>${number}<mo form="postfix" stretchy="false">)</mo></mrow>` : number;
}
