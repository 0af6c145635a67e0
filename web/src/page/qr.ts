// A QR code as SVG.

import qrcode from "qrcode-generator";

const svg = "http://www.w3.org/2000/svg";
const quiet = 4; // modules of white around it (ISO/IEC 18004)

/** qr draws a text. Upper-case digits and letters make the smallest code. */
export function qr(text: string, label: string): SVGElement {
  const code = qrcode(0, "M");
  code.addData(text, /^[0-9A-Z $%*+\-./:]*$/.test(text) ? "Alphanumeric" : "Byte");
  code.make();
  const n = code.getModuleCount();
  let d = "";
  for (let y = 0; y < n; y++) for (let x = 0; x < n; x++) if (code.isDark(y, x)) d += `M${x + quiet} ${y + quiet}h1v1h-1z`;
  const out = document.createElementNS(svg, "svg");
  const side = n + 2 * quiet;
  out.setAttribute("viewBox", `0 0 ${side} ${side}`);
  out.setAttribute("role", "img");
  out.setAttribute("aria-label", label);
  const paper = document.createElementNS(svg, "rect");
  paper.setAttribute("width", String(side));
  paper.setAttribute("height", String(side));
  paper.setAttribute("class", "paper");
  const ink = document.createElementNS(svg, "path");
  ink.setAttribute("d", d);
  ink.setAttribute("class", "ink");
  out.append(paper, ink);
  return out;
}
