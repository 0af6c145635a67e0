// The vectors that the Go side reads and writes as well.

import { readFileSync } from "node:fs";
import { type Bytes, unhex } from "../src/peerlink/bytes";

/** read parses a file of vectors; path is from the repository's root. */
export function read<T>(path: string): T {
  return JSON.parse(readFileSync(new URL(`../../${path}`, import.meta.url), "utf8")) as T;
}

/** wire reads hexadecimal digits with spaces between. */
export function wire(s: string): Bytes {
  return unhex(s.replaceAll(" ", ""));
}
