/* SHA-256 in steps. OpenSSL 3 calls it deprecated, but its successor allocates for each message, and this must not. */
#ifndef STREAMGATE_SHA256_H
#define STREAMGATE_SHA256_H

#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/crypto.h>
#include <openssl/sha.h>

#endif
