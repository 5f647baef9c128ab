"use strict";
// Helpers. Text becomes text nodes only: nothing that comes from data is ever read as HTML.

const page = JSON.parse(document.getElementById("data").textContent);

function add(parent, tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in made && typeof value !== "string") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  if (parent) parent.append(made);
  return made;
}

function draw(parent, tag, attributes = {}, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}

function all(selector, root = document) {
  return [...root.querySelectorAll(selector)];
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = add(document.body, "a", { href: url, download: name });
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
