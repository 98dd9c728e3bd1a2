// An axis: where a value lies between two pixels, and which values are named. A logarithmic one has a range of exponents.

const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";
const raised = k => (k < 0 ? "⁻" : "") + [...String(Math.abs(k))].map(digit => SUPERSCRIPTS[digit]).join("");
const tenTo = k => (Math.abs(k) <= 3 ? String(Number(`1e${k}`)) : `10${raised(k)}`);
const padded = (low, high) => [low - .06 * (high - low || 1), high + .06 * (high - low || 1)];

class Axis {
  constructor({ text, log, range }, from, to) {
    Object.assign(this, { text, log, range, from, to });
  }

  // The axis of losses: of logarithms, unless one is below 0; what is above `cap` has diverged and goes out of sight.
  static ofLosses(text, values, cap) {
    const known = values.filter(v => v !== null).map(v => Math.min(v, cap));
    const log = known.every(v => v >= 0) && known.some(v => v > 0);
    const shown = log ? known.filter(v => v > 0).map(log10) : known;
    return { text, log, range: shown.length ? padded(Math.min(...shown), Math.max(...shown)) : [0, 1] };
  }

  // What is 0 or less lies below a logarithmic axis, and not nowhere.
  at(value) {
    const [low, high] = this.range, known = this.log ? log10(Math.max(value, 1e-320)) : value;
    return this.from + (known - low) / (high - low) * (this.to - this.from);
  }

  // [pixel, text] of up to about so many values.
  ticks(count) {
    const [low, high] = this.range;
    const decades = this.log ? Math.floor(high) - Math.ceil(low) + 1 : 0;
    let values;
    if (decades >= 2) {
      const every = Math.ceil(decades / count), first = Math.ceil(low / every) * every;
      return Array.from({ length: Math.floor((high - first) / every) + 1 }, (_, i) => first + i * every)
        .map(k => [this.at(10 ** k), tenTo(k)]);
    }
    if (this.log && high - low > .4) {
      values = [1, 2, 5].flatMap(m => [-1, 0, 1].map(k => m * 10 ** (Math.floor(low) + 1 + k)));
    } else {
      const [from, to] = this.log ? [10 ** low, 10 ** high] : [low, high];
      const wide = (to - from) / count, unit = 10 ** Math.floor(log10(wide));
      const step = [1, 2, 5, 10].find(m => m * unit >= wide) * unit;
      values = Array.from({ length: count + 2 }, (_, i) => (Math.ceil(from / step) + i) * step);
    }
    const inside = v => (v - this.from) * (v - this.to) <= 1e-6;
    return values.map(v => [this.at(v), number(v)]).filter(([pixel]) => inside(pixel));
  }
}
