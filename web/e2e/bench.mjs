// MB/s between this page's library in Chromium and the Go side:
//
//   PEERCHAT=… PEER=… node e2e/bench.mjs
//
// One channel of a link beside the data channel alone, each direction, the best
// and the median of $ROUNDS, or five.

import { build } from "vite";
import { World } from "./world.mjs";

const bytes = 64 << 20;
const rounds = Number(process.env.ROUNDS ?? 5);

const built = await build({
  configFile: false,
  logLevel: "error",
  root: new URL("..", import.meta.url).pathname,
  resolve: { alias: { crypto: new URL("../src/nonode.ts", import.meta.url).pathname } },
  build: { write: false, rolldownOptions: { output: { codeSplitting: false } }, target: "es2023", lib: { entry: "e2e/bench.ts", formats: ["es"], fileName: "bench" } },
});
const code = [built].flat()[0].output.find((o) => o.type === "chunk" && o.isEntry).code;

const w = await World.make();
try {
  for (const [what, args] of [["bare", ["-bare"]], ["channel", []]]) {
    const peer = await w.peer(...args);
    const page = await (await w.context({ bypassCSP: true })).newPage();
    // A page of this origin that does nothing by itself.
    await page.route("**/bench.js", (r) => r.fulfill({ contentType: "text/javascript", body: code }));
    await page.goto(w.url + "config.json");
    const got = { up: [], down: [] };
    for (let i = 0; i < rounds; i++) {
      const r = await page.evaluate(async ([what, signal, device, bytes]) => (await import("/bench.js"))[what](signal, device, bytes), [what, w.signal, peer.device, bytes]);
      got.up.push(r.up);
      got.down.push(r.down);
    }
    for (const [way, all] of Object.entries(got)) {
      all.sort((a, b) => a - b);
      console.log(`${what.padEnd(8)} ${way.padEnd(5)} median ${all[rounds >> 1].toFixed(1)} MB/s, best ${all.at(-1).toFixed(1)} MB/s, of ${all.map((v) => v.toFixed(1)).join(" ")}`);
    }
    await page.context().close();
  }
} finally {
  await w.close();
}
