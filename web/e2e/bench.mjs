// MB/s between this page's library in Chromium and the Go side:
//
//   PEERCHAT=… PEER=… node e2e/bench.mjs
//
// One channel of a link beside the data channel alone, each direction, the best
// and the median of $ROUNDS, or five.

import { library } from "./library.mjs";
import { World } from "./world.mjs";

const bytes = 64 << 20;
const rounds = Number(process.env.ROUNDS ?? 5);

const w = await World.make();
try {
  for (const [what, args] of [["bare", ["-bare"]], ["channel", []]]) {
    const peer = await w.peer(...args);
    const context = await w.context({ bypassCSP: true });
    const run = await library(w, context, "bench.ts");
    const got = { up: [], down: [] };
    for (let i = 0; i < rounds; i++) {
      const r = await run(what, w.signal, peer.device, bytes);
      got.up.push(r.up);
      got.down.push(r.down);
    }
    for (const [way, all] of Object.entries(got)) {
      all.sort((a, b) => a - b);
      console.log(`${what.padEnd(8)} ${way.padEnd(5)} median ${all[rounds >> 1].toFixed(1)} MB/s, best ${all.at(-1).toFixed(1)} MB/s, of ${all.map((v) => v.toFixed(1)).join(" ")}`);
    }
    await context.close();
  }
} finally {
  await w.close();
}
