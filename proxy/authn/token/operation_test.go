package token

import "testing"

func TestParseOperation(t *testing.T) {
	f := func(value string, want Operation, method string, needs bool) {
		t.Helper()
		op, ok := ParseOperation([]byte(value))
		if op != want || ok != (want != "") {
			t.Errorf("%q is %q, %v", value, op, ok)
		}
		if ok && (op.Method() != method || op.NeedsCredential() != needs) {
			t.Errorf("%s: method %s, needs a credential: %v", op, op.Method(), op.NeedsCredential())
		}
	}
	f("GETDELEGATIONTOKEN", Get, "GET", true)
	f("getDelegationToken", Get, "GET", true)
	f("RENEWDELEGATIONTOKEN", Renew, "PUT", true)
	f("canceldelegationtoken", Cancel, "PUT", false)
	f("GETDELEGATIONTOKENS", "", "", false)
	f(" GETDELEGATIONTOKEN", "", "", false)
	f("", "", "", false)
	f("getdelegationto\u212aen", "", "", false) // the sign of the kelvin
	f("GETDELEGAT\u0131ONTOKEN", "", "", false) // a dotless i
}

// As the recorded answers of Hadoop's KMS have them.
func TestOperationMessages(t *testing.T) {
	f := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	f(Get.WrongMethod("POST"), "Wrong HTTP method [POST] for operation [GETDELEGATIONTOKEN], it should be [GET]")
	f(Renew.WrongMethod("GET"), "Wrong HTTP method [GET] for operation [RENEWDELEGATIONTOKEN], it should be [PUT]")
	f(Cancel.MissingToken(), "Operation [CANCELDELEGATIONTOKEN] requires the parameter [token]")
}

func TestBodies(t *testing.T) {
	token, err := ParseURL([]byte(vectorURL))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(token.AppendJSON([]byte("x"))), `x{"Token":{"urlString":"`+vectorURL+`"}}`; got != want {
		t.Errorf("%s", got)
	}
	if got := string(AppendRenewedJSON([]byte("x"), 1700000000000)); got != `x{"long":1700000000000}` {
		t.Errorf("%s", got)
	}
}
