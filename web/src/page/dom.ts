// The page is built of elements and text, never of HTML that is parsed: what a
// peer says can be nothing but text.

import { invisible } from "../peerlink/bytes";

type Attributes = Record<string, string | number | boolean | ((e: never) => void)>;

/** el makes an element. Attributes that are functions become listeners, false is left out. */
export function el<K extends keyof HTMLElementTagNameMap>(tag: K, attributes: Attributes = {}, ...children: (Node | string)[]): HTMLElementTagNameMap[K] {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") e.addEventListener(name, value as EventListener);
    else if (value !== false) e.setAttribute(name, value === true ? "" : String(value));
  }
  e.append(...children);
  return e;
}

/** get returns an element of index.html. */
export function get<T extends HTMLElement = HTMLElement>(id: string): T {
  const e = document.getElementById(id);
  if (!e) throw new Error(`the page has no #${id}`);
  return e as T;
}

/** theirs shows a text that somebody else wrote: its direction stays within it. */
export function theirs(s: string, tag: "bdi" | "span" = "bdi"): HTMLElement {
  return el(tag, { dir: "auto", class: "theirs" }, visible(s));
}

/** spoken shows a message: as theirs, with its lines. */
export function spoken(s: string): HTMLElement {
  const lines = s.split("\n").flatMap((line, i) => (i > 0 ? [el("br"), visible(line)] : [visible(line)]));
  return el("bdi", { dir: "auto", class: "theirs" }, ...lines);
}

/** visible writes characters that would hide or turn text as their codes. */
export function visible(s: string): string {
  return s.replace(/[\p{Cc}\p{Zl}\p{Zp}]/gu, code).replace(invisible, (c) => (/[\u200c\u200d]/.test(c) ? c : code(c))); // a browser shows joined characters as one
}

function code(c: string): string {
  return c === "\t" ? " " : `\\u{${c.codePointAt(0)!.toString(16)}}`;
}

/** say has a screen reader read a text out. */
export function say(s: string, how: "said" | "alarm" = "said"): void {
  get(how).textContent = s;
}

/** size writes a number of bytes for people. */
export function size(n: number): string {
  if (n < 1024) return `${n} B`;
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let v = n;
  let unit = "B";
  for (const u of units) {
    if (v < 1024) break;
    v /= 1024;
    unit = u;
  }
  return `${v < 10 ? v.toFixed(1) : Math.round(v)} ${unit}`;
}

/** clock writes the time of day. */
export function clock(t = new Date()): HTMLElement {
  return el("time", { datetime: t.toISOString() }, t.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
}

/** groups writes an id in pieces that an eye can follow. */
export function groups(id: string): string {
  return id.replace(/(.{8})(?=.)/g, "$1 ");
}
