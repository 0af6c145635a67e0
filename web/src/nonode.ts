// @hpke/common asks Node for WebCrypto where there is none. Browsers have it.
export const webcrypto = undefined;
