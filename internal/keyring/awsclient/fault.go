package awsclient

import (
	"context"
	"errors"
	"net/http"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring/remote"
)

// codes says what an error of AWS means here. The service's own names, of both services and of the signing in front of
// them; what isn't listed is judged by its HTTP status.
var codes = map[string]api.Code{
	"AccessDenied": api.CodeDenied, "AccessDeniedException": api.CodeDenied, "NotAuthorized": api.CodeDenied, "OptInRequired": api.CodeDenied,
	"UnrecognizedClientException": api.CodeDenied, "InvalidClientTokenId": api.CodeDenied, "ExpiredToken": api.CodeDenied, "ExpiredTokenException": api.CodeDenied,
	"InvalidSignatureException": api.CodeDenied, "SignatureDoesNotMatch": api.CodeDenied, "IncompleteSignature": api.CodeDenied,
	"IncompleteSignatureException": api.CodeDenied, "MissingAuthenticationToken": api.CodeDenied, "MissingAuthenticationTokenException": api.CodeDenied,
	"InvalidGrantTokenException": api.CodeDenied,
	"DecryptionFailure":          api.CodeDenied, "EncryptionFailure": api.CodeDenied, // Secrets Manager may not use the secret's KMS key

	"NotFoundException": api.CodeNotFound, "ResourceNotFoundException": api.CodeNotFound,
	"ResourceExistsException": api.CodeConflict,

	"DisabledException": api.CodeWrongState, "KMSInvalidStateException": api.CodeWrongState, "InvalidKeyUsageException": api.CodeWrongState,
	"InvalidRequestException": api.CodeWrongState, // of a secret that is marked for deletion

	"InvalidCiphertextException": api.CodeIntegrity, "IncorrectKeyException": api.CodeIntegrity,

	"ValidationException": api.CodeInvalid, "InvalidArnException": api.CodeInvalid, "InvalidParameterException": api.CodeInvalid,
	"UnsupportedOperationException": api.CodeInvalid,

	"ThrottlingException": api.CodeUnavailable, "Throttling": api.CodeUnavailable, "TooManyRequestsException": api.CodeUnavailable,
	"RequestLimitExceeded": api.CodeUnavailable, "LimitExceededException": api.CodeUnavailable, "DependencyTimeoutException": api.CodeUnavailable,
	"KeyUnavailableException": api.CodeUnavailable, "KMSInternalException": api.CodeUnavailable, "InternalServiceError": api.CodeUnavailable,
	"InternalFailure": api.CodeUnavailable, "ServiceUnavailable": api.CodeUnavailable, "ServiceUnavailableException": api.CodeUnavailable,
}

// nexts is what helps, by code.
var nexts = map[api.Code]string{
	api.CodeDenied:      "check the credentials of keyturn, its IAM policy and the key's own policy against the statement in the provider's page",
	api.CodeNotFound:    "check name, region and account",
	api.CodeWrongState:  "look at its state in AWS: enable it, or cancel its deletion",
	api.CodeUnavailable: "AWS may be asked again later; see its health page if that lasts",
}

// Fault is the error of a call under ctx. Its message names the error of AWS when it is one of the known, and never
// the text that came with it.
func Fault(ctx context.Context, err error, doing string) *fault.Error {
	var answer smithy.APIError
	if ctx.Err() != nil || !errors.As(err, &answer) {
		f := remote.Fault(ctx, err, doing)
		if f.Code == api.CodeUnavailable {
			f = f.WithNext("check that AWS can be reached from this machine: network, proxy, AWS_ENDPOINT_URL")
		}
		return f
	}
	code, known := codes[answer.ErrorCode()]
	if known {
		doing += ": AWS answered " + answer.ErrorCode()
	} else {
		code = byStatus(err)
	}
	return fault.Wrap(code, err, doing).WithNext(nexts[code])
}

func byStatus(err error) api.Code {
	var response *awshttp.ResponseError
	if errors.As(err, &response) {
		switch response.HTTPStatusCode() {
		case http.StatusUnauthorized, http.StatusForbidden:
			return api.CodeDenied
		}
	}
	return api.CodeUnavailable
}
