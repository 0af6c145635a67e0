// What can go wrong, told apart by class. Texts that a peer wrote are bounded
// before they get here; who shows them must treat them as a stranger's.

/** The codes of docs/protocol.md, by which programs decide: the text beside one is for people. 256 and up are an application's. */
export const Code = {
  closed: 0, flowControl: 1, cancelled: 2, resources: 3, internal: 4, protocol: 5, refused: 6, notNeeded: 7, crossed: 8, idle: 9, closing: 10, noListener: 11, notProven: 12,
  notAccepted: 13,
  aborted: 256,
} as const;

const words = [
  "closed", "flow control violated", "cancelled", "out of resources", "internal error", "protocol violated",
  "refused", "not needed", "crossed", "idle", "closing", "no listener", "not proven", "not accepted",
];

/** codeText names a code. */
export function codeText(code: number): string {
  return words[code] ?? `code ${code}`;
}

/** ProtocolError: the peer broke the protocol. */
export class ProtocolError extends Error {
  override name = "ProtocolError";
}

/** IdentityError: a chain, a signature or an id was not what it must be. */
export class IdentityError extends Error {
  override name = "IdentityError";
}

/** LostError: the connection ended without a word. */
export class LostError extends Error {
  override name = "LostError";
}

/** ClosedError: this side has closed the link or the channel. */
export class ClosedError extends Error {
  override name = "ClosedError";
  constructor(message = "closed on this side") {
    super(message);
  }
}

/** ResetError: one side of a channel has cut it. */
export class ResetError extends Error {
  override name = "ResetError";
  constructor(
    readonly code: number,
    readonly remote: boolean,
  ) {
    super(`channel reset ${remote ? "by the other device" : "here"}: ${codeText(code)}`);
  }
}

/** GoingAwayError: the other device has closed the link, and says why. */
export class GoingAwayError extends Error {
  override name = "GoingAwayError";
  constructor(
    readonly code: number,
    readonly reason: string,
  ) {
    super(`the other device closed the connection: ${reason || codeText(code)}`);
  }
}

/** StoppedError: the user of this side has stopped it. */
export class StoppedError extends Error {
  override name = "StoppedError";
  constructor() {
    super("stopped");
  }
}

/**
 * DeclinedError: the other device did not want the channel, the file or the
 * call. code says why to a program, 0 where the other device told none;
 * Code.noListener is worth another try later.
 */
export class DeclinedError extends Error {
  override name = "DeclinedError";
  constructor(
    readonly reason: string,
    readonly code: number = 0,
  ) {
    super(reason === "" ? "the other device declined" : `the other device declined: ${reason}`);
  }
}

/** givenUp tells whether a request came to nothing only because the other device gives its link up: it may be asked again on another. */
export function givenUp(e: unknown): boolean {
  if (e instanceof DeclinedError) return e.code === Code.closing;
  return e instanceof GoingAwayError && (e.code === Code.notNeeded || e.code === Code.crossed || e.code === Code.idle);
}

/** asError makes an Error of whatever was thrown. */
export function asError(e: unknown): Error {
  return e instanceof Error ? e : new Error(String(e));
}
