// Pieces of the page that are drawn from data: players to choose from, addresses, findings, menus.
import { ENGINES } from "./players.js";

export function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

/** Seconds as 1:02:05 or 4:07. */
export const clock = (seconds) => {
  const whole = Math.max(0, Math.round(seconds || 0));
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return (parts[0] ? `${parts[0]}:${String(parts[1]).padStart(2, "0")}` : String(parts[1])) + `:${String(parts[2]).padStart(2, "0")}`;
};

/** The players as radio buttons; one that this browser cannot run is greyed out. */
export function drawEngines(node, engine) {
  node.replaceChildren(...ENGINES.map((item) => {
    const input = element("input", { type: "radio", name: "engine", value: item.id, checked: item === engine, disabled: !item.usable() });
    return element("label", { title: item.usable() ? "" : "This browser does not offer it" }, input, element("span", { textContent: item.label }));
  }));
}

/** Addresses ([name, path] pairs) with a button each that copies it. */
export function drawLinks(node, links) {
  node.replaceChildren(...links.map(([name, path]) => {
    const url = new URL(path, document.baseURI).href;
    const button = element("button", { type: "button", textContent: "Copy", className: "copy" });
    button.setAttribute("aria-label", `Copy the ${name} address`);
    button.addEventListener("click", () => copy(url, button));
    return element("li", {}, element("span", { className: "kind", textContent: name }), element("code", { textContent: url }), button);
  }));
}

export function drawFindings(node, findings) {
  node.replaceChildren(...findings.map((finding) => element("li", {},
    element("code", { textContent: finding.code }), element("span", { textContent: [finding.subject, finding.detail].filter(Boolean).join(": ") }))));
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // no clipboard on plain HTTP: select the text, so that Ctrl-C takes it
    getSelection().selectAllChildren(button.previousElementSibling);
    button.textContent = "Press Ctrl-C";
    return;
  }
  button.textContent = "Copied";
  button.addEventListener("blur", () => { button.textContent = "Copy"; }, { once: true });
}

/** Fills a menu with [value, label] pairs; one without a choice is disabled. */
export function fill(select, entries, value) {
  const options = entries.map(([key, label]) => element("option", { value: key, textContent: label }));
  const same = options.length === select.options.length && options.every((option, n) => option.value === select.options[n].value && option.textContent === select.options[n].textContent);
  if (!same) select.replaceChildren(...options); // an open menu is not rebuilt under the viewer's hand
  select.value = value;
  select.disabled = entries.length < 2;
}
