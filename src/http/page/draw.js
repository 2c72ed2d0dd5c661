// Pictures of numbers: SVG from arrays, oldest value first; null is a gap. No state, and no colour: classes have those.

const SVG = "http://www.w3.org/2000/svg";

export function element(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// The q-th part of what a histogram counted, in milliseconds; null when it counted nothing.
export function percentile(boundsUs, counts, q) {
  const all = counts.reduce((sum, count) => sum + count, 0);
  if (!all) return null;
  let rest = q * all;
  for (let at = 0; at < counts.length; at++) {
    if (counts[at] && rest <= counts[at]) {
      const low = at ? boundsUs[at - 1] : 0;
      const high = boundsUs[at] ?? low;
      return (low + (high - low) * (rest / counts[at])) / 1000;
    }
    rest -= counts[at];
  }
  return boundsUs.at(-1) / 1000;
}

export function number(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 10_000) return Math.round(value).toLocaleString("en").replaceAll(",", "\u202f");
  return value >= 100 || Number.isInteger(value) ? String(Math.round(value)) : value.toFixed(1);
}

// Milliseconds as [number, unit].
export function time(ms) {
  if (ms === null || ms === undefined) return ["–", "ms"];
  return ms < 1000 ? [ms < 10 ? ms.toFixed(1) : String(Math.round(ms)), "ms"] : [(ms / 1000).toFixed(ms < 10_000 ? 2 : 1), "s"];
}

// 1, 2 or 5 times a power of ten, at least `least`.
function roundUp(value, least) {
  const wanted = Math.max(value, least);
  const power = 10 ** Math.floor(Math.log10(wanted));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= wanted * 0.999);
}

const highest = (values) => values.reduce((most, value) => Math.max(most, value ?? 0), 0);

// The pieces between gaps, as path data; a lone point is a short stroke.
function strokes(values, x, y) {
  let path = "";
  let open = false;
  values.forEach((value, at) => {
    if (value !== null) path += `${open ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
    if (value !== null && !open) path += "h.1";
    open = value !== null;
  });
  return path;
}

export function spark(svg, values, places, className) {
  const { width, height } = svg.getBoundingClientRect();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const top = highest(values) * 1.1 || 1;
  const x = (at) => width - ((values.length - 1 - at) * width) / (places - 1);
  const y = (value) => height - 1 - (value / top) * (height - 3);
  const line = strokes(values, x, y);
  const parts = [element("line", { x1: 0, x2: width, y1: height - 0.5, y2: height - 0.5, class: "grid" })];
  if (values.length > 1 && !values.includes(null)) {
    parts.push(element("path", { d: `${line}L${width} ${height}L${x(0).toFixed(1)} ${height}Z`, class: `area faint ${className}` }));
  }
  parts.push(element("path", { d: line, class: `line ${className}` }));
  svg.replaceChildren(...parts);
}

// Lines over time, or areas that stand on each other, with axes. `label` turns a value into its text.
export function chart(svg, { series, places, stacked, label, least, span }) {
  const { width, height } = svg.getBoundingClientRect();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const [left, right, above, below] = [58, 10, 8, 22];
  const drawn = stacked ? stack(series) : series;
  const most = Math.max(...drawn.map(({ values }) => highest(values)));
  const top = roundUp(most, least);
  const length = series[0].values.length;
  const x = (at) => width - right - ((length - 1 - at) * (width - left - right)) / (places - 1);
  const y = (value) => height - below - (value / top) * (height - above - below);
  const parts = [0, 0.5, 1].flatMap((part) => [
    element("line", { x1: left, x2: width - right, y1: y(part * top), y2: y(part * top), class: "grid" }),
    element("text", { x: left - 8, y: y(part * top) + 4, "text-anchor": "end" }, part ? label(part * top) : "0"),
  ]);
  parts.push(element("text", { x: left, y: height - 4 }, `${span} ago`));
  parts.push(element("text", { x: width - right, y: height - 4, "text-anchor": "end" }, "now"));
  for (const { values, className, floor, dashed } of [...drawn].reverse()) {
    const line = strokes(values, x, y);
    if (stacked && length > 1) {
      const under = floor.map((value, at) => `L${x(at).toFixed(1)} ${y(value).toFixed(1)}`).reverse().join("");
      parts.push(element("path", { d: `${line}${under}Z`, class: `area ${className}` }));
    } else if (!stacked) {
      parts.push(element("path", { d: line, class: `line ${className}${dashed ? " dashed" : ""}` }));
    }
  }
  if (!most) parts.push(element("text", { x: (left + width - right) / 2, y: (above + height - below) / 2 - 6, "text-anchor": "middle" }, "nothing to show yet"));
  svg.replaceChildren(...parts);
}

function stack(series) {
  let floor = series[0].values.map(() => 0);
  return series.map((one) => {
    const values = one.values.map((value, at) => floor[at] + (value ?? 0));
    const drawn = { ...one, values, floor };
    floor = values;
    return drawn;
  });
}

export function key(className, dashed) {
  const line = element("line", { x1: 0, x2: 24, y1: 6, y2: 6, class: dashed ? "dashed" : "" });
  return element("svg", { class: `key ${className}`, viewBox: "0 0 24 12", "aria-hidden": "true" }, line);
}
