// What Chromium tells assistive programs about a page.

/** Roles that a person acts on or finds the way by: each needs a name. */
const named = new Set([
  "button", "textbox", "link", "checkbox", "combobox", "switch", "slider", "progressbar", "image", "img", "heading", "log", "dialog",
  "complementary", "navigation", "region",
]);

/** accessible returns what is wrong with the accessibility tree of a page, in which these roles must be. */
export async function accessible(page, roles) {
  const cdp = await page.context().newCDPSession(page);
  const { nodes } = await cdp.send("Accessibility.getFullAXTree");
  await cdp.detach();
  const seen = nodes.filter((n) => !n.ignored);
  const role = (n) => n.role?.value ?? "";
  const name = (n) => (n.name?.value ?? "").trim();
  const has = (n, property) => n.properties?.find((p) => p.name === property)?.value.value;
  const out = [];
  for (const want of roles) if (!seen.some((n) => role(n) === want)) out.push(`there is no ${want}`);
  for (const n of seen) {
    if (named.has(role(n)) && name(n) === "") out.push(`a ${role(n)} without a name`);
    if (has(n, "focusable") && role(n) === "generic") out.push(`what can be focused has no role: ${name(n)}`);
  }
  if (seen.filter((n) => role(n) === "main").length !== 1) out.push("want one main");
  const levels = seen.filter((n) => role(n) === "heading").map((n) => has(n, "level"));
  if (levels.filter((l) => l === 1).length !== 1) out.push(`headings of the levels ${levels}, want one of level 1`);
  for (let i = 1; i < levels.length; i++) if (levels[i] > levels[i - 1] + 1) out.push(`a heading of level ${levels[i]} after one of ${levels[i - 1]}`);
  const invalid = seen.find((n) => has(n, "invalid") === "true");
  if (invalid && !invalid.description?.value) out.push(`${name(invalid)} is wrong, and does not say why`);
  return out;
}
