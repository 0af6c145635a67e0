import { defineConfig } from "vitest/config";

// The build must be the same everywhere, as its output is committed: no dates,
// no paths, names by content.
export default defineConfig({
  base: "./",
  resolve: { alias: { crypto: new URL("./src/nonode.ts", import.meta.url).pathname } },
  build: {
    target: "es2023",
    outDir: "dist",
    emptyOutDir: true,
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    reportCompressedSize: false,
    rolldownOptions: { output: { codeSplitting: false } },
  },
  test: { environment: "node", include: ["test/**/*.test.ts"], testTimeout: 60_000 },
});
