// What the dashboard uses of it, for its type checker: ours, not marked's.

export class Lexer {
  constructor(options?: { gfm?: boolean; breaks?: boolean; silent?: boolean });
  inlineQueue: { src: string; tokens: any[] }[];
  blockTokens(source: string, tokens: any[]): any[];
  inlineTokens(source: string, tokens: any[]): any[];
}
