// Runs the library itself in a page, without the page of "peerchat web".

import { build } from "vite";

/** library returns a function that calls what a file beside this one exports, by name, in a page of a context that bypasses CSP. */
export async function library(w, context, entry = "library.ts") {
  const built = await build({
    configFile: false,
    logLevel: "error",
    root: new URL("..", import.meta.url).pathname,
    resolve: { alias: { crypto: new URL("../src/nonode.ts", import.meta.url).pathname } },
    build: { write: false, rolldownOptions: { output: { codeSplitting: false } }, target: "es2023", lib: { entry: `e2e/${entry}`, formats: ["es"], fileName: "library" } },
  });
  const code = [built].flat()[0].output.find((o) => o.type === "chunk" && o.isEntry).code;
  const page = await context.newPage();
  await page.route("**/library.js", (r) => r.fulfill({ contentType: "text/javascript", body: code }));
  await page.goto(w.url + "config.json"); // a page of this origin that does nothing by itself
  return (name, ...args) => page.evaluate(async ([name, args]) => (await import("/library.js"))[name](...args), [name, args]);
}
