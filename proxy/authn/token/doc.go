// Package token issues, renews, cancels and verifies KMS delegation tokens, with
// Hadoop's encoding, rules and error texts.
//
// A token is an identifier (whose it is, who may renew it, until when) and a
// password, the MAC of the identifier under a master key that only the servers
// know. Servers do not take the MAC for proof that a token is alive: a token is
// good while a Store holds it, its renew date has not passed, and its password
// is the one in the store. That is what makes cancelling it possible. On the
// server that cancels, the token is dead when Cancel returns; on others that
// share the store, ten seconds later at most.
//
// What differs from Hadoop's servers, on purpose:
//
//   - An identifier has to be the stored one in every byte. Hadoop's ZooKeeper
//     store looks tokens up by their number alone, so that there a token with
//     another owner in it may pass.
//   - To cancel a token takes its password, also for its owner and renewer. To
//     whom the token is the only credential, it cancels as the owner whatever
//     the owner's name; Hadoop stumbles over owners with full names.
//   - Encodings that no Hadoop client writes are refused: longer spellings of
//     numbers, stray characters in the base64 text, bytes behind the end, names
//     that are not UTF-8 or longer than a kilobyte.
//   - A renewal never brings a cancelled token back, and a sweep never removes
//     a renewed one: changes are conditional on what the store holds.
//   - A token never outlives its MaxDate, even if the renew interval is longer.
//   - There is a bound on the number of tokens, and one on those of one owner.
//   - A store that cannot be asked is an error of its own, not a bad token.
//   - Tokens that nobody made are not looked up: the password is checked with the
//     master key first. So a token that is not remembered and has a wrong password
//     counts as one that is not in the store, and one whose master key is gone
//     as well.
package token
