// Chats: lines of UTF-8, either way (docs/protocol.md, "Chats").

import { concat, utf8 } from "./bytes";
import { type Channel, pieces } from "./channel";

/** The longest line in bytes; a longer one comes in pieces. */
export const maxLine = 64 << 10;

/** lines yields the lines of a chat until the peer ends it; it throws where the chat breaks. */
export async function* lines(channel: Channel): AsyncGenerator<string, void, void> {
  const decoder = new TextDecoder(); // what is no UTF-8 becomes U+FFFD
  let kept = new Uint8Array(0);
  for await (const piece of pieces(channel.readable)) {
    kept = concat(kept, piece);
    for (let at; (at = cut(kept)) > 0; kept = kept.slice(at)) yield decoder.decode(kept.subarray(0, at)).replace(/[\r\n]+$/, "");
  }
  if (kept.length > 0) yield decoder.decode(kept).replace(/\r$/, "");
}

/** cut returns where the first line ends, behind its line feed; 0 where it is not whole. */
function cut(b: Uint8Array): number {
  const at = b.indexOf(10);
  if (at >= 0 && at < maxLine) return at + 1;
  return b.length >= maxLine ? maxLine : 0;
}

/** Speaker writes lines into a chat. */
export class Speaker {
  readonly #out: WritableStreamDefaultWriter<Uint8Array>;

  constructor(private readonly channel: Channel) {
    this.#out = channel.writable.getWriter();
  }

  /** say sends one line; a line feed within it becomes a space. It resolves when it is on its way. */
  async say(line: string): Promise<void> {
    await this.#out.write(utf8(line.replace(/[\r\n]+/g, " ") + "\n"));
  }

  /** end says goodbye. */
  async end(): Promise<void> {
    await this.#out.close().catch(() => {}); // it has ended already
    void this.channel.close();
  }
}
