// A reply as elements: paragraphs, lists, code. Text never becomes markup: every character goes through textContent.

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)[^`]*$/;
const ITEM = /^\s{0,3}(?:[-*•]|(\d{1,3})[.)])\s+(.*)$/;
const HEADING = /^#{1,6}\s+(.*)$/;
const INLINE = /`([^`\n]+)`|\*\*([^*\n]+)\*\*/g;

// What an element was drawn from, so that blocks that did not change stay as they are (and keep a selection).
const drawn = new WeakMap();

/** Draws `text` into `target`, which holds nothing else. */
export function render(target, text) {
  const parts = blocks(text);
  parts.forEach((part, index) => {
    const old = target.children[index];
    const source = JSON.stringify(part);
    if (old && drawn.get(old) === source) return;
    const element = draw(part);
    drawn.set(element, source);
    if (old) old.replaceWith(element);
    else target.append(element);
  });
  while (target.children.length > parts.length) target.lastElementChild.remove();
}

function blocks(text) {
  const parts = [];
  let open = null;
  for (const line of text.split("\n")) {
    if (open?.kind === "code") {
      if (line.trim().startsWith(open.fence) && line.trim() === line.trim()[0].repeat(line.trim().length)) open = null;
      else open.lines.push(line);
      continue;
    }
    open = next(line, open);
    if (open && !parts.includes(open)) parts.push(open);
    if (open?.kind === "heading") open = null;
  }
  return parts;
}

// The block that a line belongs to: the open one or a new one.
function next(line, open) {
  const fence = FENCE.exec(line);
  if (fence) return { kind: "code", fence: fence[1], language: fence[2], lines: [] };
  if (!line.trim()) return null;
  const heading = HEADING.exec(line);
  if (heading) return { kind: "heading", lines: [heading[1]] };
  const item = ITEM.exec(line);
  if (item) {
    const kind = item[1] ? "ol" : "ul";
    const list = open?.kind === kind ? open : { kind, start: Number(item[1] ?? 1), lines: [] };
    list.lines.push(item[2]);
    return list;
  }
  const paragraph = open?.kind === "p" ? open : { kind: "p", lines: [] };
  paragraph.lines.push(line);
  return paragraph;
}

function draw(part) {
  switch (part.kind) {
    case "code":
      return code(part);
    case "ul":
    case "ol": {
      const list = element(part.kind, {}, ...part.lines.map((line) => element("li", {}, ...inline(line))));
      if (part.kind === "ol" && part.start !== 1) list.start = part.start;
      return list;
    }
    default:
      return element("p", part.kind === "heading" ? { className: "heading" } : {}, ...inline(part.lines.join("\n")));
  }
}

function code({ language, lines }) {
  const text = lines.join("\n");
  const pre = element("pre", { tabIndex: 0 }, element("code", {}, text));
  pre.setAttribute("role", "group");
  pre.setAttribute("aria-label", language ? `Code, ${language}` : "Code");
  const top = element("div", {}, element("span", {}, language || "code"));
  if (navigator.clipboard) top.append(copyButton(() => text));
  return element("div", { className: "code" }, top, pre);
}

/** A button that copies what `text()` gives and says so. */
export function copyButton(text) {
  const button = element("button", { type: "button", className: "quiet" }, "Copy");
  button.addEventListener("click", () => copy(button, text()));
  return button;
}

/** Copies, and says so on the button for a moment. */
export async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Could not copy";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

function inline(text) {
  const nodes = [];
  let from = 0;
  for (const match of text.matchAll(INLINE)) {
    nodes.push(text.slice(from, match.index));
    nodes.push(match[1] ? element("code", {}, match[1]) : element("strong", {}, match[2]));
    from = match.index + match[0].length;
  }
  nodes.push(text.slice(from));
  return nodes.filter((node) => node !== "");
}

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}
