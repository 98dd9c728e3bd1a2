// Surfaces of two variables: their values and gradients by a traced program, and a picture of them on a canvas.

// A surface as a field: values(xs, ys), value(x, y) and gradient(x, y), by the program that Python has traced.
function traced(program) {
  const [constants] = program.scalars(1, 0, {});
  const run = (x, y) => {
    const of = { x, y, value: new Float64Array(x.length), gx: new Float64Array(x.length), gy: new Float64Array(x.length) };
    program.run(of, constants, x.length, double);
    return of;
  };
  const at = (x, y) => run(Float64Array.of(x), Float64Array.of(y));
  return {
    values: (xs, ys) => run(xs, ys).value,
    value: (x, y) => at(x, y).value[0],
    gradient(x, y) {
      const { gx, gy } = at(x, y);
      return [gx[0], gy[0]];
    },
  };
}

// Shade a canvas by a field over a window [[left, right], [bottom, top]], the lower the deeper, with lines of equal
// value. Heights count by their logarithm above the lowest, so that valleys show.
function paint(canvas, field, [[left, right], [bottom, top]], { low, high, line }, lines = 16) {
  const { width, height } = canvas, n = width * height;
  const xs = new Float64Array(n), ys = new Float64Array(n);
  for (let k = 0; k < n; k++) {
    xs[k] = left + ((k % width) + 0.5) / width * (right - left);
    ys[k] = top - (Math.floor(k / width) + 0.5) / height * (top - bottom);
  }
  const levels = heights(field.values(xs, ys), lines);
  const context = canvas.getContext("2d"), image = context.createImageData(width, height), data = image.data;
  for (let k = 0; k < n; k++) {
    const level = levels[k], right = levels[k % width < width - 1 ? k + 1 : k - 1];
    const below = levels[k + width < n ? k + width : k - width];
    const slope = Math.hypot(right - level, below - level), nearest = Math.abs(level - Math.round(level));
    const drawn = slope > 0 ? 0.5 * Math.max(0, 1 - nearest / (0.9 * slope)) * Math.min(1, 0.35 / slope) : 0;
    const share = Number.isFinite(level) ? level / lines : 1;
    for (let c = 0; c < 3; c++) {
      const ground = low[c] + (high[c] - low[c]) * share;
      data[4 * k + c] = ground + (line[c] - ground) * drawn;
    }
    data[4 * k + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

// Values as levels from 0 to the number of lines, of which a tenth of the picture lies in the lowest.
function heights(values, lines) {
  const sorted = Float64Array.from(values.filter(Number.isFinite)).sort();
  const lowest = sorted[0] ?? 0, unit = (sorted[Math.floor(sorted.length / 20)] - lowest) || 1;
  const most = Math.log1p(((sorted[sorted.length - 1] ?? 1) - lowest) / unit) || 1;
  return Float64Array.from(values, (v) => Math.log1p((v - lowest) / unit) / most * lines);
}
