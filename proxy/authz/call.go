package authz

import "github.com/edekd/edekd/proxy/audit"

// Call is what a call of the KMS interface needs.
type Call struct {
	Op       audit.Op
	Types    []Type // one of them, at the KMS layer
	Material bool   // brings material with SET_KEY_MATERIAL only, and shows it with GET only
	OnKeys   bool   // whether there is a key layer
	Right    Right  // to each key, where OnKeys
}

// Calls are those of Hadoop's KMS, in the order of its documentation.
var Calls = []Call{
	{Op: audit.CreateKey, Types: []Type{Create}, Material: true, OnKeys: true, Right: KeyManagement},
	{Op: audit.DeleteKey, Types: []Type{Delete}, OnKeys: true, Right: KeyManagement},
	{Op: audit.RollNewVersion, Types: []Type{Rollover}, Material: true, OnKeys: true, Right: KeyManagement},
	{Op: audit.InvalidateCache, Types: []Type{Rollover, Delete}, OnKeys: true, Right: KeyManagement},
	{Op: audit.GetKeys, Types: []Type{GetKeys}},
	{Op: audit.GetKeysMetadata, Types: []Type{GetMetadata}, OnKeys: true, Right: KeyRead},
	{Op: audit.GetMetadata, Types: []Type{GetMetadata}, OnKeys: true, Right: KeyRead},
	{Op: audit.GetCurrentKey, Types: []Type{Get}, OnKeys: true, Right: KeyRead},
	{Op: audit.GetKeyVersion, Types: []Type{Get}, OnKeys: true, Right: KeyRead},
	{Op: audit.GetKeyVersions, Types: []Type{Get}, OnKeys: true, Right: KeyRead},
	{Op: audit.GenerateEEK, Types: []Type{GenerateEEK}, OnKeys: true, Right: KeyGenerateEEK},
	{Op: audit.ReencryptEEK, Types: []Type{GenerateEEK}, OnKeys: true, Right: KeyGenerateEEK},
	{Op: audit.ReencryptEEKBatch, Types: []Type{GenerateEEK}, OnKeys: true, Right: KeyGenerateEEK},
	{Op: audit.DecryptEEK, Types: []Type{DecryptEEK}, OnKeys: true, Right: KeyDecryptEEK},
}

// Additions are the calls that only edekd has. Who may do something one by one
// may do it in a batch, and nobody else.
var Additions = []Call{
	{Op: audit.DecryptEEKBatch, Types: []Type{DecryptEEK}, OnKeys: true, Right: KeyDecryptEEK},
}
