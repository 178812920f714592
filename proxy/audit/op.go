package audit

// Op is an audited operation: one of the KMS's own, or one of the rights that
// the key layer of kms-acls.xml names. Hadoop keeps two types for them, with
// two names in common; the difference shows only in that denials of the key
// layer leave a pending count alone.
type Op uint8

// The operations of the REST interface (Hadoop's KMS.KMSOp, and DecryptEEKBatch,
// which is edekd's own).
const (
	CreateKey Op = iota + 1
	DeleteKey
	RollNewVersion
	InvalidateCache
	GetKeys
	GetKeysMetadata
	GetKeyVersions
	GetMetadata
	GetKeyVersion
	GetCurrentKey
	GenerateEEK
	DecryptEEK
	ReencryptEEK
	ReencryptEEKBatch
	DecryptEEKBatch

	// What happens to the service, see Log.State.
	ServiceState

	// To act for somebody, see Credential.
	Impersonate
	UseToken
	GetToken
	RenewToken
	CancelToken

	// The rights of the key layer (KeyAuthorizationKeyProvider.KeyOpType).
	KeyAll
	KeyRead
	KeyManagement
	KeyGenerateEEK
	KeyDecryptEEK
)

var opNames = [...]string{
	CreateKey:         "CREATE_KEY",
	DeleteKey:         "DELETE_KEY",
	RollNewVersion:    "ROLL_NEW_VERSION",
	InvalidateCache:   "INVALIDATE_CACHE",
	GetKeys:           "GET_KEYS",
	GetKeysMetadata:   "GET_KEYS_METADATA",
	GetKeyVersions:    "GET_KEY_VERSIONS",
	GetMetadata:       "GET_METADATA",
	GetKeyVersion:     "GET_KEY_VERSION",
	GetCurrentKey:     "GET_CURRENT_KEY",
	GenerateEEK:       "GENERATE_EEK",
	DecryptEEK:        "DECRYPT_EEK",
	ReencryptEEK:      "REENCRYPT_EEK",
	ReencryptEEKBatch: "REENCRYPT_EEK_BATCH",
	DecryptEEKBatch:   "DECRYPT_EEK_BATCH",
	ServiceState:      "SERVICE_STATE",
	Impersonate:       "IMPERSONATE",
	UseToken:          "USE_DELEGATION_TOKEN",
	GetToken:          "GET_DELEGATION_TOKEN",
	RenewToken:        "RENEW_DELEGATION_TOKEN",
	CancelToken:       "CANCEL_DELEGATION_TOKEN",
	KeyAll:            "ALL",
	KeyRead:           "READ",
	KeyManagement:     "MANAGEMENT",
	KeyGenerateEEK:    "GENERATE_EEK",
	KeyDecryptEEK:     "DECRYPT_EEK",
}

// String is the operation's name in the log.
func (o Op) String() string {
	if int(o) < len(opNames) {
		return opNames[o]
	}
	return ""
}

// jsonOnly reports whether the frozen text has no line for the operation.
func (o Op) jsonOnly() bool { return o >= Impersonate && o <= CancelToken }

// aggregated reports whether successes are counted rather than logged one by
// one (KMSAudit.AGGREGATE_OPS_WHITELIST).
func (o Op) aggregated() bool {
	switch o {
	case GetKeyVersion, GetCurrentKey, GenerateEEK, DecryptEEK, ReencryptEEK:
		return true
	}
	return false
}
